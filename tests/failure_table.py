"""`python -m tests.failure_table [ROW …]`: every row of the failure table, forced on a real `lobu run`, as a table.

Prints for each row what a client was told and how long after the cause, over several repetitions; exit 1 when a client
was ever told anything else than the row promises. The client is connected before the cause, and follows by resuming.
Where a host goes, it follows at another one, which shares the first one's database and nothing else.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import attrs
import trio

from lobu_actors.contract.ids import new_id
from lobu_actors.store.embedded import EmbeddedServer
from lobu_actors.store.migrate import migrate
from tests.conftest import admin
from tests.system.lobu_process import ECHO, LobuRun, free_port, lobu_run, until
from tests.system.sse_client import Broken, Client, Conversation, Transcript

REPETITIONS = 5
ROW_SECONDS = 60.0
CRASHES = 4  # of one conversation's worker that are still no loop
RAW = Path(__file__).parent / "workers" / "raw.py"

_AGENTS = {
    "never_ready": "deadlines = { startup_seconds = 1 }",
    "silent": "deadlines = { heartbeat_seconds = 1 }",
    "mute": "deadlines = { first_output_seconds = 1 }",
    "idling": "deadlines = { progress_seconds = 1 }",
    "endless": "deadlines = { turn_seconds = 1 }",
    "guarded": 'guardrails = [ { kind = "pattern", pattern = "forbidden" } ]',
    "modelless": "settings = { requires_model = true }",
    "broken_guard": 'guardrails = [ { kind = "command", command = ["sh", "-c", "exit 3"] } ]',
}


def _config(program: Path) -> str:
    agents = "".join(
        f'[[agents]]\nid = "{name}"\nworker = "{"never_ready" if name == "never_ready" else "echo"}"\n{rest}\n'
        for name, rest in _AGENTS.items()
    )
    return f"""
[limits]
requests_per_second = 0
crash_loop_crashes = {CRASHES}
[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
[workers.never_ready]
command = ["{sys.executable}", "{RAW}", "never_ready"]
[workers.vanished]
command = ["{program}"]
[[agents]]
id = "echo"
worker = "echo"
default = true
[[agents]]
id = "vanished"
worker = "vanished"
{agents}
"""


@attrs.define
class Turn:
    """One message whose reader is there already."""

    run: LobuRun
    conversation: Conversation  # where the message is sent
    message_id: str
    transcript: Transcript

    async def send(self, content: str) -> float:
        """The moment of the cause, when the message itself is it."""
        begun = time.perf_counter()
        await self.conversation.send(content, self.message_id)
        return begun

    async def speaks(self) -> None:
        while not self.transcript.texts.get(self.message_id):
            await self.transcript.changed()

    def worker_pid(self) -> int:
        [[pid]] = admin(
            self.run.database_url,
            f"SELECT worker_pid FROM run WHERE conversation_id = '{self.conversation.key}' AND status = 'live'",
        )
        assert isinstance(pid, int)
        return pid


Cause = Callable[[Turn], Awaitable[float]]


@attrs.frozen
class Row:
    """`cause` makes it happen and gives the moment from which time counts."""

    name: str
    what: str
    test: str
    told: str
    cause: Cause
    agent: str = "echo"
    counted_from: str = "the message"
    note: str = ""
    hosts: int = 1  # with 2, the client reads at the second, and `cause` happens to the first


def says(content: str) -> Cause:
    async def cause(turn: Turn) -> float:
        return await turn.send(content)

    return cause


async def kill_worker(turn: Turn) -> float:
    await turn.send("stream 100000 5")
    await turn.speaks()
    pid = turn.worker_pid()
    os.kill(pid, signal.SIGKILL)
    return time.perf_counter()


async def stop_progress(turn: Turn) -> float:
    await turn.send("stream 100 1500")  # longer between two words than may be without progress
    await turn.speaks()
    return time.perf_counter()


async def crash_until_loop(turn: Turn) -> float:
    for _ in range(CRASHES + 1):
        frame = await turn.conversation.ask("crash")
        assert frame.data["errorCode"] == "WORKER_CRASHED", frame
    return await turn.send("hello")


async def kill_supervisor(turn: Turn) -> float:
    await turn.send("stream 20 25")
    await turn.speaks()
    begun = time.perf_counter()
    await turn.run.kill_main()
    await turn.run.start()
    return begun


async def kill_host(turn: Turn) -> float:
    """All of it at once, as when a machine loses its power. It comes back for the next repetition."""
    await turn.send("stream 20 25")
    await _runs(turn)
    begun = time.perf_counter()
    await turn.run.kill_all()
    return begun


async def pause_host(turn: Turn) -> float:
    """Supervisor and workers are still there and do nothing, for longer than the lease."""
    await turn.send("stream 20 25")
    await _runs(turn)
    begun = time.perf_counter()
    turn.run.signal(signal.SIGSTOP)
    return begun


async def drain_host(turn: Turn) -> float:
    await turn.send("stream 200 10")
    await _runs(turn)
    begun = time.perf_counter()
    turn.run.signal(signal.SIGTERM)
    assert await turn.run.wait_exit() == 0
    return begun


async def _runs(turn: Turn) -> None:
    await until(
        lambda: admin(
            turn.run.database_url,
            f"SELECT 1 FROM run WHERE conversation_id = '{turn.conversation.key}' AND status = 'live'",
        ),
        "it runs",
    )


async def crash_database(turn: Turn) -> float:
    await turn.send("stream 20 25")
    await turn.speaks()
    before = turn.run.postmaster_pid()
    begun = time.perf_counter()
    os.kill(before, signal.SIGQUIT)
    return begun


async def drain(turn: Turn) -> float:
    await turn.send("stream 20 25")
    await turn.speaks()
    begun = time.perf_counter()
    turn.run.signal(signal.SIGTERM)
    assert await turn.run.wait_exit() == 0
    await turn.run.start()
    return begun


async def corrupt_marker(turn: Turn) -> float:
    """Of a turn whose row is lost: it comes back under the turn's id for its message's."""
    begun = time.perf_counter()
    admin(
        turn.run.database_url,
        "INSERT INTO turn_marker (organization_id, turn_id, agent_id, conversation_id, accepted_at, owed_since) "
        f"SELECT organization_id, '{turn.message_id}', agent_id, conversation_id, now(), now() FROM conversation "
        f"WHERE conversation_id = '{turn.conversation.key}'",
    )
    return begun


_WORKERS, _STOP = "tests/system/test_workers.py", "tests/system/test_stop.py"
_DATABASE, _HERE = "tests/system/test_database.py", "this command"
ROWS = (
    Row("killed", "worker is killed mid-turn", f"{_WORKERS} `test_a_killed_worker`", "WORKER_CRASHED", kill_worker,
        counted_from="SIGKILL"),
    Row("closed", "worker closes its socket mid-turn",
        f"{_WORKERS} `test_the_client_hears_at_once_and_the_next_message_finds_a_worker`", "WORKER_CRASHED",
        says("close")),
    Row("spawn", "spawn fails",
        f"{_WORKERS} `test_a_program_that_vanished_or_is_not_executable_any_more`", "WORKER_STARTUP_FAILED",
        says("hello"), "vanished"),
    Row("ready", "no `ready` in time", f"{_WORKERS} `test_a_worker_that_does_not_come_up`", "WORKER_STARTUP_FAILED",
        says("hello"), "never_ready", note="deadline 1 s"),
    Row("timeout", "worker exits 124", f"{_WORKERS} `test_a_worker_that_reports_a_timeout_is_tried_once_more`",
        "SESSION_TIMEOUT", says("crash 124"), note="two attempts, 1 s between them"),
    Row("heartbeat", "worker alive, no heartbeat", _HERE, "WORKER_UNRESPONSIVE", says("freeze"), "silent",
        note="deadline 1 s"),
    Row("first", "heartbeats but no first output", _HERE, "FIRST_OUTPUT_TIMEOUT", says("hang"), "mute",
        note="deadline 1 s"),
    Row("progress", "heartbeats but no progress", _HERE, "NO_PROGRESS", stop_progress, "idling",
        counted_from="the last output", note="deadline 1 s"),
    Row("total", "total deadline passed", _HERE, "TURN_TIMEOUT", says("stream 10000 20"), "endless",
        note="deadline 1 s"),
    Row("loop", "worker crash loop", _HERE, "WORKER_CRASH_LOOP", crash_until_loop,
        note=f"the message behind {CRASHES + 1} crashes, of which {CRASHES} are allowed"),
    Row("provider", "provider said no", _HERE, "PROVIDER_QUOTA", says("fail PROVIDER_QUOTA no")),
    Row("guardrail", "input guardrail trips", _HERE, "GUARDRAIL_REJECTED", says("a forbidden word"), "guarded"),
    Row("guard-breaks", "input guardrail breaks", _HERE, "GUARDRAIL_FAILED", says("hello"), "broken_guard"),
    Row("model", "no model is named", _HERE, "NO_MODEL_CONFIGURED", says("hello"), "modelless"),
    Row("marker", "marker cannot be read", "tests/system/test_corrupt_markers.py", "MARKER_CORRUPT", corrupt_marker,
        counted_from="the lost row", note="found by the sweeper"),
    Row("adopt", "supervisor is killed and started again, workers alive",
        f"{_STOP} `test_the_main_process_alone_is_killed`, `python -m tests.supervisor_kills`", "complete",
        kill_supervisor, counted_from="SIGKILL", note="its first attempt goes on, 0.5 s of work"),
    Row("host", "host dies, another takes over", "tests/system/test_files.py", "complete", kill_host,
        counted_from="SIGKILL", note="lease of 6 s, then 0.5 s of work again", hosts=2),
    Row("paused", "host is paused, another takes over",
        "tests/system/test_freeze.py `test_another_host_takes_over_and_nothing_runs_twice`", "complete", pause_host,
        counted_from="SIGSTOP", note="lease of 6 s, then 0.5 s of work again", hosts=2),
    Row("database", "Postgres crashes and is started again",
        f"{_DATABASE} `test_the_embedded_server_crashes_under_load`", "complete", crash_database,
        counted_from="SIGQUIT", note="0.5 s of work left"),
    Row("drain", "drain", f"{_STOP} `test_sigterm_lets_finish_what_can_and_hands_on_the_rest`", "complete", drain,
        counted_from="SIGTERM", note="0.5 s of work left; told at once, or by the next start"),
    Row("hand-over", "drain, beyond the grace, to another host", _HERE, "complete", drain_host,
        counted_from="SIGTERM", note="grace of 1 s, then 2 s of work again", hosts=2),
)  # fmt: skip


async def measure(run: LobuRun, reads_at: LobuRun, row: Row) -> tuple[str, float, bool]:
    """What one client was told, the seconds since the cause, and whether it was told of a restart."""
    conversation = await _open(run, row.agent)
    followed = conversation.through(Client(reads_at.url, reads_at.admin_key))
    turn = Turn(run, conversation, new_id(), Transcript())
    ended = 0.0

    async def follow() -> None:
        nonlocal ended
        await turn.transcript.follow(followed, lambda: turn.message_id in turn.transcript.terminals)
        ended = time.perf_counter()

    with trio.fail_after(ROW_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await turn.transcript.changed()
            begun = await row.cause(turn)
    assert not turn.transcript.faults, turn.transcript.faults
    frame = turn.transcript.terminals[turn.message_id]
    restarted = any(frame.event == "restart" for frame in turn.transcript.frames)
    return frame.data.get("errorCode", frame.event), ended - begun, restarted


async def _open(run: LobuRun, agent: str) -> Conversation:
    """Of a run that may have lost its database just now."""
    while True:
        try:
            return await Client(run.url, run.admin_key).open(agentId=agent)
        except (Broken, AssertionError):
            await trio.sleep(0.05)


async def table(rows: list[Row], repetitions: int) -> tuple[list[str], bool]:
    """The lines, and whether every client was told what it should be."""
    lines = [
        "| what happens | forced by | the client saw | from | p50 | max | remarks |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    right = True
    async with AsyncExitStack() as stack:
        run = await stack.enter_async_context(_own_run()) if any(row.hosts == 1 for row in rows) else None
        pair = await stack.enter_async_context(_two_runs()) if any(row.hosts == 2 for row in rows) else None
        for row in rows:
            found = []
            for _ in range(repetitions):
                first, reads_at = pair if row.hosts == 2 and pair else (run, run)
                assert first is not None
                assert reads_at is not None
                found.append(await measure(first, reads_at, row))
                await _restore(first)
            told = sorted({code for code, _, _ in found})
            right = right and told == [row.told]
            seconds = [taken for _, taken, _ in found]
            note = ", ".join(filter(None, [row.note, "`restart` was sent" if any(r for *_, r in found) else ""]))
            lines.append(
                f"| {row.what} | {row.test} | {', '.join(f'`{code}`' for code in told)} | {row.counted_from} "
                f"| {median(seconds) * 1e3:.0f} ms | {max(seconds) * 1e3:.0f} ms | {note} |"
            )
            print(lines[-1], file=sys.stderr)
    return lines, right


@asynccontextmanager
async def _own_run() -> AsyncIterator[LobuRun]:
    with tempfile.TemporaryDirectory(prefix="lobu-table-") as name:
        program = Path(name) / "vanished"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        async with lobu_run(config=_config(program), arguments=("--port", str(free_port()))) as run:
            program.unlink()
            run.folder.joinpath("lobu.toml").write_text(_config(Path(sys.executable)))  # starts again without it
            await until(lambda: run.url, "it listens")
            yield run


@asynccontextmanager
async def _two_runs() -> AsyncIterator[tuple[LobuRun, LobuRun]]:
    """Two hosts on one database that is neither's."""
    with tempfile.TemporaryDirectory(prefix="lobu-table-") as name:
        server = EmbeddedServer(Path(name))
        await server.start()
        try:
            await migrate(server.url)
            options: dict[str, Any] = {
                "config": f"[limits]\ndrain_grace_seconds = 1\n{ECHO}",
                "database_url": server.url,
                "environment": {"LOBU_ALLOW_MULTI_HOST": "1"},
            }
            async with lobu_run(**options) as one, lobu_run(**options) as other:
                yield one, other
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 30):
                await server.stop("immediate")


async def _restore(run: LobuRun) -> None:
    """As it was before the cause."""
    assert run.process is not None
    if run.process.poll() is not None:
        await run.start()
    else:
        run.signal(signal.SIGCONT)


def main() -> int:
    wanted = sys.argv[1:]
    rows = [row for row in ROWS if not wanted or row.name in wanted]
    lines, right = trio.run(table, rows, REPETITIONS)
    print("\n".join(lines))
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())

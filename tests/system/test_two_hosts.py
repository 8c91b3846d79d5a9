"""Two hosts on one database: refused where they must not be, replaced one after the other without a turn failing, and
shown as they are.
"""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import psycopg
import pytest
import trio

from tests.conftest import admin
from tests.system.audit import broken_promises, turn_of
from tests.system.cluster import lobu
from tests.system.conftest import Start, client_of
from tests.system.load import Load
from tests.system.lobu_process import ECHO, free_port, lobu_run, until

pytestmark = pytest.mark.timeout(240)

# Longer than any pause of a host: what is tested with it has nothing to do with a lease that ends.
TTL_SECONDS = 30
CONFIG = f"""
[limits]
host_ttl_seconds = {TTL_SECONDS}
host_renew_seconds = 0.5
host_margin_seconds = 1
drain_grace_seconds = 1
{ECHO}"""
SOON_EXPIRED = CONFIG.replace(f"ttl_seconds = {TTL_SECONDS}", "ttl_seconds = 3")
SEVERAL = {"LOBU_ALLOW_MULTI_HOST": "1"}
FILES = {"LOBU_SESSION_STORE": "file"}
LONG = "sleep 1000"  # runs until somebody cancels it
ASKS = "ask Done?"  # runs until somebody answers
# Under load with the lease as it is by default, which a host renews in time on a busy machine too.
ROLLED = f"[limits]\ndrain_grace_seconds = 1\n{ECHO}"
ENDLESS = 1_000_000
TURNS = 150  # between two restarts


async def refused(**options: Any) -> str:
    """What a run says that does not start."""
    async with lobu_run(config=CONFIG, start=False, **options) as second:
        second.launch()
        assert await second.wait_exit() == 1
        assert second.processes() == []
        said = [line for line in second.errors().splitlines() if line.startswith("lobu: ")]
        assert len(said) == 1, second.errors()
        return said[0]


# --- refused starts


async def test_without_leave_a_second_host_is_refused_and_a_successor_is_not(
    start_run: Start, database_url: str
) -> None:
    first = await start_run(config=CONFIG)
    said = await refused(database_url=database_url)
    assert "LOBU_ALLOW_MULTI_HOST is not set here" in said
    assert f"has been alive on this database since {time.strftime('%Y-', time.gmtime())}" in said
    assert (first.folder / ".lobu" / "host_id").read_text()[:13] in said
    await first.kill_main()  # its row lives still, and its folder is free
    await first.start()
    assert (await (await client_of(first).open()).ask("hello")).event == "complete"


async def test_leave_must_be_given_to_both(start_run: Start, database_url: str) -> None:
    await start_run(config=CONFIG)
    said = await refused(database_url=database_url, environment=SEVERAL)
    assert "it was started without LOBU_ALLOW_MULTI_HOST" in said


@pytest.mark.parametrize("files_at", ["first", "second"])
async def test_sessions_in_files_refuse_a_second_host(start_run: Start, database_url: str, files_at: str) -> None:
    await start_run(config=CONFIG, environment=SEVERAL | (FILES if files_at == "first" else {}))
    said = await refused(database_url=database_url, environment=SEVERAL | (FILES if files_at == "second" else {}))
    assert "LOBU_SESSION_STORE=file keeps" in said
    assert ("keeps its sessions" if files_at == "first" else "keeps this host's sessions") in said


async def test_a_host_that_is_gone_refuses_nobody(start_run: Start, database_url: str) -> None:
    first = await start_run(config=SOON_EXPIRED)
    await first.kill_all()
    await until(lambda: _live(database_url) == 0, "its lease ends", 10)
    second = await start_run(config=CONFIG)
    assert (await (await client_of(second).open()).ask("hello")).event == "complete"


async def test_a_host_that_slept_while_another_took_its_place_ends(start_run: Start, database_url: str) -> None:
    first = await start_run(config=SOON_EXPIRED)
    first.signal(signal.SIGSTOP)
    await until(lambda: _live(database_url) == 0, "its lease ends", 10)
    await start_run(config=CONFIG)
    first.signal(signal.SIGCONT)
    assert await first.wait_exit() == 1
    assert "LOBU_ALLOW_MULTI_HOST is not set here" in first.errors()
    assert first.processes() == []


async def test_sessions_on_shared_storage_go_from_host_to_host(database_url: str) -> None:
    """The storage is one folder under two names."""
    options: dict[str, Any] = {
        "config": CONFIG,
        "database_url": database_url,
        "environment": SEVERAL | FILES | {"LOBU_SHARED_SESSIONS": "1"},
        "start": False,
    }
    async with lobu_run(**options) as one, lobu_run(**options) as other:
        shared = one.folder / "shared"
        shared.mkdir()
        for run in (one, other):
            (run.folder / ".lobu").mkdir(mode=0o700)
            (run.folder / ".lobu" / "workspaces").symlink_to(shared)
            await run.start()
        talk = await client_of(one).open()
        assert (await talk.ask("first words")).event == "complete"
        assert (await lobu(one, "drain", "--wait")).returncode == 0
        assert (await talk.through(client_of(other)).ask("second words")).event == "complete"
        [session] = [path for path in shared.rglob("*.jsonl") if path.is_file()]
        written = session.read_text()
        assert written.index("first words") < written.index("second words")


# --- drain


async def test_a_drained_host_hands_over_at_once_and_ends(start_run: Start, database_url: str) -> None:
    one = await start_run(config=CONFIG, environment=SEVERAL)
    other = await start_run(config=CONFIG, environment=SEVERAL)
    talk = await client_of(one).open()
    running, queued = await talk.send(LONG), await talk.send("behind it")
    await until(lambda: turn_of(database_url, running)[:2] == ("running", 1), "it runs")
    drained = await lobu(one, "drain", "--wait")
    handed_over = trio.current_time()
    assert (drained.returncode, drained.stdout.strip().endswith("is gone.")) == (0, True), drained
    assert await one.wait_exit() == 0
    assert one.processes() == []
    await until(lambda: turn_of(database_url, running)[:2] == ("running", 2), "the other host runs it", 20)
    print(f"handed over within {trio.current_time() - handed_over:.2f} s of the end")
    there = talk.through(client_of(other))
    assert (await there.client.call("POST", f"{there.path}/cancel", {"messageId": running})).status == 202
    assert (await there.terminal_of(running)).event == "cancelled"
    assert (await there.terminal_of(queued)).event == "complete"
    assert turn_of(database_url, running) == ("cancelled", 2, 0), "a hand-over is no failure"
    assert turn_of(database_url, queued) == ("completed", 1, 0)
    assert broken_promises(database_url) == []


async def test_what_waits_goes_on_elsewhere_while_the_host_still_uses_its_grace(
    start_run: Start, database_url: str
) -> None:
    config = CONFIG.replace("drain_grace_seconds = 1", "drain_grace_seconds = 100")
    one = await start_run(config=config, environment=SEVERAL)
    await start_run(config=config, environment=SEVERAL)
    long, idle = await client_of(one).open(userId="a"), await client_of(one).open(userId="b")
    assert (await idle.ask("hello")).event == "complete"
    running = await long.send(ASKS)
    answer = await _question(database_url)
    host_id = (one.folder / ".lobu" / "host_id").read_text()
    drained = await lobu(one, "drain", host_id[:20], "--json")
    assert json.loads(drained.stdout)["hostId"] == host_id
    await until(lambda: _held(database_url, host_id) == 1, "the idle conversation is given up", 30)
    begun = trio.current_time()
    message = await idle.send("to a host that drains")
    await until(lambda: turn_of(database_url, message)[0] == "completed", "it is done elsewhere", 30)
    print(f"accepted by the draining host and done elsewhere within {trio.current_time() - begun:.2f} s")
    assert one.is_up
    assert (await long.client.call("POST", f"{long.path}/questions/{answer}/answer", {"answer": "yes"})).status == 200
    assert await one.wait_exit() == 0
    assert turn_of(database_url, running) == ("completed", 1, 0), "it had the time"
    assert broken_promises(database_url) == []


async def test_without_a_link_what_waits_goes_on_elsewhere_at_once_too(start_run: Start, database_url: str) -> None:
    """Nobody reaches the other host's address, and no sweep comes in time: word is left in the store."""
    config = CONFIG.replace("drain_grace_seconds = 1", "drain_grace_seconds = 100\nsweep_interval_seconds = 100")
    config += f'[links]\nadvertise = "ws://127.0.0.1:{free_port()}"\n'
    one = await start_run(config=config, environment=SEVERAL)
    await start_run(config=config, environment=SEVERAL)
    long, idle = await client_of(one).open(userId="a"), await client_of(one).open(userId="b")
    assert (await idle.ask("hello")).event == "complete"
    running = await long.send(LONG)
    await until(lambda: turn_of(database_url, running)[0] == "running", "it runs")
    host_id = (one.folder / ".lobu" / "host_id").read_text()
    assert (await lobu(one, "drain", host_id)).returncode == 0
    await until(lambda: _held(database_url, host_id) == 1, "the idle conversation is given up", 30)
    message = await idle.send("to a host that drains")
    await until(lambda: turn_of(database_url, message)[0] == "completed", "it is done elsewhere", 30)
    assert "link is up" not in one.errors()


async def test_a_wait_that_is_too_short_says_what_is_left(start_run: Start, database_url: str) -> None:
    config = CONFIG.replace("drain_grace_seconds = 1", "drain_grace_seconds = 100")
    run = await start_run(config=config)
    talk = await client_of(run).open()
    await talk.send(ASKS)
    answer = await _question(database_url)
    drained = await lobu(run, "drain", "--wait", "--timeout", "2")
    assert drained.returncode == 1
    assert "is not gone after 2 s: 1 running, 0 queued, 1 conversations held" in drained.stderr
    assert (await talk.client.call("POST", f"{talk.path}/questions/{answer}/answer", {"answer": "yes"})).status == 200
    assert await run.wait_exit() == 0


async def test_two_hosts_are_replaced_one_after_the_other_under_load(start_run: Start, database_url: str) -> None:
    one, other = [
        await start_run(config=ROLLED, environment=SEVERAL, arguments=("--port", str(free_port()))) for _ in range(2)
    ]
    loads = [
        Load(run, turns=ENDLESS, conversations=10, clients=4, seed=number, users=f"h{number}-")
        for number, run in enumerate((one, other))
    ]

    async def roll() -> None:
        for run in (one, other):
            ended = sum(len(load.terminals()) for load in loads)
            await until(lambda: sum(len(load.terminals()) for load in loads) > ended + TURNS, "turns end", 90)  # noqa: B023
            assert (await lobu(run, "drain", "--wait")).returncode == 0
            assert await run.wait_exit() == 0
            await run.start()
        for load in loads:
            load.finish()

    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(roll)
            for load in loads:
                nursery.start_soon(load.go)
    for load in loads:
        assert set(load.counts()) == {"complete", "MY_CODE"}, "an ordered restart is nobody's failure"
        assert (load.faults(), load.missing(), load.strange()) == ([], set(), set())
    with psycopg.connect(database_url) as connection:
        failed = connection.execute(
            "SELECT count(*) FROM turn WHERE failures > 0 AND error_code <> 'MY_CODE'"
        ).fetchone()
        again = connection.execute(
            "SELECT error_code, count(*) FROM run WHERE status = 'requeued' GROUP BY 1"
        ).fetchall()
    assert failed == (0,)
    assert {code for code, _ in again} <= {"DRAINED", "HANDED_OVER"}, again
    accepted = [name for load in loads for name in load.accepted]
    assert broken_promises(database_url, accepted=accepted) == []


# --- status


async def test_status_shows_what_is(start_run: Start, database_url: str) -> None:
    one = await start_run(config=CONFIG, environment=SEVERAL)
    other = await start_run(config=CONFIG, environment=SEVERAL)
    talk = await client_of(one).open()
    running = await talk.send(LONG)
    await talk.send("behind it")
    await until(lambda: turn_of(database_url, running)[0] == "running", "it runs")
    ids = {run: (run.folder / ".lobu" / "host_id").read_text() for run in (one, other)}
    shown = json.loads((await lobu(other, "status", "--json")).stdout)
    hosts = {host["hostId"]: host for host in shown["hosts"]}
    assert hosts.keys() == set(ids.values())
    first, second = hosts[ids[one]], hosts[ids[other]]
    assert (first["leases"], first["epochs"], first["running"], first["queued"]) == (1, 1, 1, 1)
    assert (second["leases"], second["epochs"], second["running"], second["queued"]) == (0, 0, 0, 0)
    assert all(0 < host["expiresInSeconds"] <= TTL_SECONDS and host["state"] == "active" for host in hosts.values())
    text = (await lobu(other, "status")).stdout.splitlines()
    head = next(line for line in text if "LEASE" in line)
    rows = [line for line in text if "active" in line and any(host_id[:13] in line for host_id in ids.values())]
    assert len(rows) == 2
    assert {row.index("active") for row in rows} == {head.index("STATE")}, "columns are aligned"


async def test_status_shows_the_links_of_each_host(start_run: Start) -> None:
    """What one host reaches, and what another does not: nobody listens where the third one says it does."""
    wrong = f'[links]\nadvertise = "ws://127.0.0.1:{free_port()}"\n'
    keys = SEVERAL | {"LOBU_JWT_KEYS": f"k:{'s' * 40}"}  # without which they would not let each other in
    runs = [await start_run(config=CONFIG + extra, environment=keys) for extra in ("", "", wrong)]
    one, other, unreachable = ids = [(run.folder / ".lobu" / "host_id").read_text() for run in runs]

    async def links() -> dict[str, Any]:
        shown = json.loads((await lobu(runs[0], "status", "--json")).stdout)["hosts"]
        return {host["hostId"]: host["links"] for host in shown}

    def complete(found: dict[str, Any]) -> bool:
        """Each has told of its links to both others, and has heard a heartbeat over those that are up."""
        counts = [(found[host_id]["up"], found[host_id]["down"]) for host_id in ids]
        known = [link["lagMs"] is not None for host in found.values() for link in host["worst"] if link["up"]]
        return counts == [(1, 1), (1, 1), (2, 0)] and all(known)

    with trio.fail_after(30):
        while not complete(found := await links()):  # noqa: ASYNC110 - another program writes it
            await trio.sleep(0.2)
    assert [(link["hostId"], link["up"]) for link in found[one]["worst"]] == [(unreachable, False), (other, True)]
    assert {link["hostId"] for link in found[unreachable]["worst"]} == {one, other}
    text = (await lobu(runs[0], "status")).stdout.splitlines()
    assert sum(line.endswith(" ms") for line in text) == 4
    down = [line.split() for line in text if " down " in line]
    assert sorted(down) == sorted([host_id[:13], unreachable[:13], "down", "-"] for host_id in (one, other))


async def _question(url: str) -> str:
    """The id of the one that is open; its turn runs until it is answered."""

    def found() -> list[tuple[object, ...]]:
        return admin(url, "SELECT question_id FROM question WHERE status = 'open'")

    await until(found, "it asks")
    [(question_id,)] = found()
    return str(question_id)


def _live(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM host WHERE state <> 'dead' AND expires_at > now()").fetchone()
    return 0 if row is None else int(row[0])


def _held(url: str, host_id: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM actor_lease WHERE host_id = %s", (host_id,)).fetchone()
    return 0 if row is None else int(row[0])

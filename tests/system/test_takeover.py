"""The supervisor of one of two hosts is killed: the other proves it and goes on, long before the lease is over."""

from __future__ import annotations

import time

import trio

from tests.system.audit import broken_promises, log_of, turn_of
from tests.system.conftest import Start, client_of
from tests.system.lobu_process import ECHO, LobuRun, until
from tests.system.sse_client import Transcript

LEASE_SECONDS = 30.0
CONFIG = f"""
[limits]
host_ttl_seconds = {LEASE_SECONDS}
{ECHO}[links]
listen = "127.0.0.1:0"
"""
SHARED = {"LOBU_ALLOW_MULTI_HOST": "1", "LOBU_JWT_KEYS": f"k:{'s' * 40}"}
REPETITIONS = 2


async def test_a_killed_supervisor_is_taken_over_from_at_once(start_run: Start, database_url: str) -> None:
    hosts = [await start_run(config=CONFIG, environment=SHARED, database_url=database_url) for _ in range(2)]
    delays = []
    for repetition in range(REPETITIONS):
        killed, other = hosts[repetition % 2], hosts[1 - repetition % 2]
        await until(lambda: all(_links(host) > repetition for host in hosts), "links are up")  # noqa: B023
        conversation = await client_of(killed).open()
        message_id = await conversation.send("stream 100 20")
        transcript = Transcript()
        with trio.fail_after(20):
            await transcript.follow(conversation, lambda: transcript.texts.get(message_id))  # noqa: B023
        workers = killed.worker_pids()
        await killed.kill_main()
        begun = time.monotonic()
        with trio.fail_after(20):
            at_other = conversation.through(client_of(other))
            await transcript.follow(at_other, lambda: "restart" in [f.event for f in transcript.frames])  # noqa: B023
            delays.append(time.monotonic() - begun)
            await transcript.follow(at_other, lambda: message_id in transcript.terminals)  # noqa: B023
        assert transcript.faults == []
        assert transcript.terminals[message_id].event == "complete"
        assert turn_of(database_url, message_id)[:2] == ("completed", 2)
        assert [kind for _, kind, _ in log_of(database_url, conversation.key)] == ["restart", "complete"]
        await killed.start()
        await until(lambda: not set(workers) & set(killed.worker_pids()), "what was taken over is ended")  # noqa: B023
    print(f"kill to the next event at the other host: {sorted(round(delay, 2) for delay in delays)} s")
    assert max(delays) < LEASE_SECONDS / 2, delays
    assert broken_promises(database_url) == []


def _links(host: LobuRun) -> int:
    """How often it had one to the other host, which is once more with each start of one of the two."""
    return host.errors().count("link is up")

"""What `/metrics` says of turns that ended, crashed, are owed, and of a host that is well."""

from __future__ import annotations

import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.system.conftest import Start, client_of
from tests.system.lobu_process import ECHO, LobuRun


async def shown(run: LobuRun) -> dict[str, float]:
    """Every sample, by its name and labels."""
    text = await client_of(run).text("/metrics")
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        " ".join([sample.name, *(value for _, value in sorted(sample.labels.items()))]): sample.value
        for sample in samples
        if not sample.name.endswith("_bucket")
    }


async def test_turns_crashes_and_debts(start_run: Start) -> None:
    run = await start_run(config=ECHO)
    conversation = await client_of(run).open()
    for _ in range(3):
        assert (await conversation.ask("hello")).event == "complete"
    assert (await conversation.ask("crash")).event == "agent-error"
    found = await shown(run)
    assert found["lobu_turn_seconds_count completed"] == 3
    assert 0 < found["lobu_turn_seconds_sum completed"] < 30
    assert found["lobu_turn_seconds_count failed"] == 1
    assert found["lobu_crash_to_terminal_seconds_count"] == 1
    assert 0 < found["lobu_crash_to_terminal_seconds_sum"] < 10
    assert found["lobu_edge_accept_seconds_count"] == 4
    assert found["lobu_host_trust_seconds"] > 0
    assert found["lobu_event_loop_lag_seconds_count"] >= 0

    await conversation.send("sleep 1000")
    await conversation.send("behind it")
    with trio.fail_after(30):
        while True:
            found = await shown(run)
            if (found.get("lobu_owed_turns running"), found.get("lobu_owed_turns queued")) == (1, 1):
                break
            await trio.sleep(0.1)
    assert found["lobu_oldest_owed_seconds"] > 0
    assert found["lobu_live_runs"] == 1
    assert found["lobu_workers ready"] == 1

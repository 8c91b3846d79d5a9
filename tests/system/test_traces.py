"""Traces from a client through a turn to its worker, as a collector is told of them by OTLP; nothing without one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.fakes.collector import Collector, collector
from tests.system.conftest import Start, client_of
from tests.system.lobu_process import ECHO, LobuRun, until
from tests.system.tool_worker import found

CONFIG = f"""
[workers.traces]
command = ["python", "-m", "tests.system.trace_worker"]
[[agents]]
id = "traces"
worker = "traces"
[workers.tools]
command = ["python", "-m", "tests.system.tool_worker"]
[[agents]]
id = "tools"
worker = "tools"
{ECHO}"""
ROOT = {"WORKER_ENV_PYTHONPATH": str(Path(__file__).parents[2])}
TOOL_SECONDS = 0.05
ROUNDED_SECONDS = 0.001
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def collecting() -> Iterator[Collector]:
    with collector() as made:
        yield made


def has_loaded_the_library(run: LobuRun) -> bool:
    """Its encoder is an extension, which shows."""
    return "google/_upb" in Path(f"/proc/{run.pid}/maps").read_text()


async def ask(run: LobuRun, agent: str, content: str, **headers: str) -> dict[str, Any]:
    """A message sent with these headers; its receipt, once the end was delivered."""
    conversation = await client_of(run).open(agentId=agent)
    bearer = {"Authorization": f"Bearer {run.admin_key}"}
    async with httpx.AsyncClient(base_url=run.url, headers=bearer, trust_env=False) as http:
        answer = await http.post(f"{conversation.path}/messages", json={"content": content}, headers=headers)
    assert answer.status_code == 200
    receipt: dict[str, Any] = answer.json()
    receipt["end"] = await conversation.terminal_of(receipt["messageId"])
    return receipt


async def test_a_clients_trace_goes_through_the_turn_to_its_worker(start_run: Start, collecting: Collector) -> None:
    run = await start_run(config=CONFIG, environment=ROOT | {"OTEL_EXPORTER_OTLP_ENDPOINT": collecting.url})
    given = f"00-{TRACE}-{PARENT}-01"
    receipt = await ask(run, "traces", "a secret wish", traceparent=given)
    told = json.loads(receipt["end"].data["finalText"])
    assert told["message"] == given
    await until(lambda: {"lobu.turn", "lobu.deliver"} <= collecting.of(TRACE).keys(), "spans come", 15)
    spans = collecting.of(TRACE)
    turn, run_span = spans["lobu.turn"], spans["lobu.run"]
    assert turn.parent_id == PARENT
    assert turn.attributes["lobu.turn_id"] == receipt["turnId"]
    assert turn.attributes["lobu.status"] == "completed"
    for name in ("lobu.accept", "lobu.queue", "lobu.run", "lobu.deliver"):
        assert spans[name].parent_id == turn.span_id, name
    for name in ("lobu.worker", "lobu.first-delta"):
        assert spans[name].parent_id == run_span.span_id, name
    assert told["frame"] == f"00-{TRACE}-{run_span.span_id}-01"
    assert turn.start <= run_span.start <= run_span.end <= turn.end
    assert all(span.start <= span.end for span in spans.values())
    assert {span.service for span in spans.values()} == {"lobu"}
    assert "secret" not in str(collecting.spans)
    assert has_loaded_the_library(run)


async def test_tools_and_questions_failures_and_turns_of_their_own_trace(
    start_run: Start, collecting: Collector
) -> None:
    run = await start_run(config=CONFIG, environment=ROOT | {"OTEL_EXPORTER_OTLP_ENDPOINT": collecting.url})
    conversation = await client_of(run).open(agentId="tools")
    async with conversation.events() as stream:
        receipt = (await conversation.post("work until found")).body
        with trio.fail_after(30):
            await stream.next_of("status")
            await trio.sleep(TOOL_SECONDS)  # from when it is known to have begun
            found(run.folder)
            question = (await stream.next_of("question")).data["questionId"]
            await conversation.client.call("POST", f"{conversation.path}/questions/{question}/answer", {"answer": "x"})
            await stream.next_of("complete")
    crashed = await ask(run, "echo", "crash")
    trace, other = (one["turnId"].replace("-", "") for one in (receipt, crashed))
    await until(lambda: "lobu.turn" in collecting.of(trace) and "lobu.turn" in collecting.of(other), "spans come", 15)
    spans = collecting.of(trace)
    assert spans["lobu.turn"].parent_id == ""
    assert spans["lobu.tool"].attributes["lobu.detail"] == "search"
    assert spans["lobu.tool"].end - spans["lobu.tool"].start >= (TOOL_SECONDS - ROUNDED_SECONDS) * 1e9
    assert spans["lobu.question"].attributes["lobu.detail"] == question
    assert collecting.of(other)["lobu.turn"].error == "WORKER_CRASHED"
    assert "worker-gone" in collecting.of(other)["lobu.run"].events


async def test_what_a_client_does_not_want_recorded_is_not(start_run: Start, collecting: Collector) -> None:
    run = await start_run(config=CONFIG, environment=ROOT | {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collecting.url})
    receipt = await ask(run, "traces", "hello", traceparent=f"00-{TRACE}-{PARENT}-00")
    assert json.loads(receipt["end"].data["finalText"])["frame"].endswith("-00")
    seen = await ask(run, "traces", "hello", traceparent="no such thing")
    assert json.loads(seen["end"].data["finalText"])["message"] is None
    await until(lambda: collecting.of(seen["turnId"].replace("-", "")), "the other one comes", 15)
    assert collecting.of(TRACE) == {}


async def test_without_a_collector_a_worker_is_told_what_the_client_gave_and_no_library_is_loaded(
    start_run: Start,
) -> None:
    run = await start_run(config=CONFIG, environment=ROOT)
    given = f"00-{TRACE}-{PARENT}-01"
    assert json.loads((await ask(run, "traces", "hello", traceparent=given))["end"].data["finalText"]) == {
        "frame": given,
        "message": given,
    }
    assert json.loads((await ask(run, "traces", "hello"))["end"].data["finalText"])["frame"] is None
    assert not has_loaded_the_library(run)
    assert "lobu_spans_total 0.0" in await client_of(run).text("/metrics")


async def test_a_collector_that_is_away_holds_nothing_up(start_run: Start) -> None:
    run = await start_run(config=CONFIG, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    for _ in range(20):
        assert (await ask(run, "echo", "hello"))["end"].event == "complete"
    assert await run.stop(20) == 0

"""What the interface answers to generated requests is what its own description says: status, form, and never a 500.

On a real socket with the real store, so that what a database refuses and a server cannot parse is part of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import attrs
import httpx
import pytest
import schemathesis
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from edge.openapi import document
from edge.settings import EdgeSettings
from lobu_actors.store.embedded import EmbeddedServer
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.records import Turn
from tests.conftest import admin, url_of
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.gateway import Owner
from tests.fakes.http_server import running

EXAMPLES = 30  # of each operation
CALL_SECONDS = 20.0
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
REPLYING = {"createChatCompletion", "createResponse"}  # named by `model`; others say it in their path
ENDLESS = {"readEvents", "watchHouse"}  # streams; what they refuse has tests of its own
LAST = "endConversation"  # the others' conversation is closed by it
OPERATIONS = sorted(
    (
        operation["operationId"]
        for item in document()["paths"].values()
        for method, operation in item.items()
        if method != "parameters" and operation["operationId"] not in ENDLESS
    ),
    key=lambda name: (name == LAST, name),
)


@attrs.frozen
class Served:
    url: str
    key: str
    conversation: str
    schema: Any


async def reply(world: EdgeWorld, turn: Turn) -> None:
    """At once, to what is asked in another protocol: its answer is the reply."""
    if turn.ref.conversation_id.endswith("_schema"):
        return
    owner = await Owner.of(world.store, world.gateway.feeds, turn.ref)
    await owner.begin(turn)
    owner.say("hello")
    await owner.end(turn)


@pytest.fixture(scope="module")
def served(database_server: EmbeddedServer, template_database: str) -> Iterator[Served]:
    """The server in a thread of its own: schemathesis blocks."""
    admin(database_server.url, f"CREATE DATABASE lobu_schema TEMPLATE {template_database} STRATEGY file_copy")
    made: list[Served] = []
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        store = PostgresStore.connect(url_of(database_server, "lobu_schema"))
        world = await EdgeWorld.make(EdgeSettings(stop_grace_seconds=0.1), store)
        ref = await world.conversation("schema")
        world.gateway.on_accepted = partial(reply, world)
        async with running(world) as server:
            schema = schemathesis.openapi.from_dict(document())
            schema.config.update(base_url=server.url)
            made.append(Served(server.url, world.admin_key, ref.conversation_id, schema))
            ready.set()
            await trio.to_thread.run_sync(over.wait)
        store.close()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    assert ready.wait(60)
    yield made[0]
    over.set()
    thread.join(30)
    assert not thread.is_alive()
    admin(database_server.url, "DROP DATABASE lobu_schema WITH (FORCE)")


@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_every_answer_is_as_described(served: Served, operation_id: str) -> None:
    operation = served.schema.find_operation_by_id(operation_id)
    cases = st.one_of(
        operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE),
        operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE),
    )

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=cases, known=st.sampled_from((True, True, True, False)), signed=st.integers(0, 7))
    def ask(case: Any, known: bool, signed: int) -> None:
        if known and "key" in case.path_parameters:
            case.path_parameters["key"] = served.conversation
        if known and case.path_parameters.keys() & {"agent_id", "model"}:
            case.path_parameters |= {name: "echo" for name in case.path_parameters if name in ("agent_id", "model")}
        if known and isinstance(case.body, dict) and "model" in case.body and operation_id in REPLYING:
            case.body["model"] = "echo"
        headers = {"Authorization": f"Bearer {served.key}"} if signed else {}
        case.call_and_validate(headers=headers, checks=CHECKS, timeout=CALL_SECONDS)

    ask()


@pytest.mark.parametrize("since", ["", "x", "1.2", "9" * 30, "-1", "1.1.1.1", "\x7f"])
def test_a_stream_refuses_as_described(served: Served, since: str) -> None:
    """Whether it refuses or streams, by the head alone."""
    described = document()["paths"]["/api/v1/agents/{key}/events"]["get"]["responses"]
    headers = {"Authorization": f"Bearer {served.key}"}
    address = f"{served.url}/api/v1/agents/{served.conversation}/events"
    with httpx.stream("GET", address, params={"since": since}, headers=headers, timeout=CALL_SECONDS) as answer:
        assert str(answer.status_code) in described
        [kind] = described[str(answer.status_code)]["content"]
        assert answer.headers["content-type"].partition(";")[0] == kind

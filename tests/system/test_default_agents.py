"""Whose default agent there is after a start, through real processes and their HTTP interface."""

from __future__ import annotations

import trio

from edge.tokens import api_key_hash
from tests.conftest import admin
from tests.system.conftest import Start, client_of
from tests.system.lobu_process import LobuRun
from tests.system.sse_client import Client, Conversation

ECHO = '[workers.echo]\ncommand = ["python", "-m", "lobu_actors.agents.echo"]\n'
HAND_KEY = "lobu_key-of-an-organization-made-by-hand"
STATES = "SELECT agent_id, is_default, disabled FROM agent WHERE organization_id = 'local' ORDER BY agent_id"


def agent(name: str, *lines: str) -> str:
    return "\n".join(["[[agents]]", f'id = "{name}"', 'worker = "echo"', *lines, ""])


def make_organization(run: LobuRun) -> Client:
    """By hand, without an agent; a client of it."""
    admin(run.database_url, "INSERT INTO organization VALUES ('hand')")
    admin(
        run.database_url,
        "INSERT INTO api_key (key_hash, organization_id, user_id, role, label) "
        f"VALUES ('{api_key_hash(HAND_KEY)}', 'hand', 'admin', 'admin', '')",
    )
    return Client(run.url, HAND_KEY)


async def test_an_organization_made_by_hand_has_one_after_the_next_start(start_run: Start) -> None:
    run = await start_run(config=ECHO + agent("first") + agent("second", "default = true"))
    client = make_organization(run)
    refused = await client.call("POST", "/api/v1/agents", {})
    assert (refused.status, refused.body["code"]) == (404, "NO_DEFAULT_AGENT")
    assert refused.body["error"] == "This organization has no default agent; name one as `agentId`."
    refused = await Conversation(client, "second_admin_hand").post("hi")  # a message to what could not be opened
    assert (refused.status, refused.body["error"]) == (404, "There is no such conversation.")

    assert await run.stop() == 0
    await run.start()
    conversation = await Client(run.url, HAND_KEY).open()
    assert conversation.key.startswith("second_ann_hand_")
    assert (await conversation.ask("hello")).data["finalText"] == "hello"


async def test_an_agent_that_goes_from_the_file_is_disabled_and_comes_back(start_run: Start) -> None:
    run = await start_run(config=ECHO + agent("first", "default = true") + agent("second"))
    conversation = await client_of(run).open(agentId="first")
    assert (await conversation.ask("hello")).event == "complete"
    assert await run.stop() == 0

    (run.folder / "lobu.toml").write_text(ECHO + agent("second"))
    await run.start()
    assert admin(run.database_url, STATES) == [("first", False, True), ("second", True, False)]
    client = client_of(run)
    assert (await client.open()).key.startswith("second_")  # the first that is there, as none is named the default
    refused = await client.call("POST", "/api/v1/agents", {"agentId": "first"})
    assert (refused.status, refused.body["code"]) == (404, "AGENT_NOT_FOUND")
    again = conversation.through(client)
    assert (await again.ask("still there?")).data["errorCode"] == "AGENT_DISABLED"
    history = await client.call("GET", f"{again.path}/session/messages")
    assert [message["role"] for message in history.body["messages"]][:1] == ["user"]  # nothing was deleted
    assert await run.stop() == 0

    (run.folder / "lobu.toml").write_text(ECHO + agent("second") + agent("first"))
    await run.start()
    assert (await conversation.through(client_of(run)).ask("and now?")).data["finalText"] == "and now?"


async def test_two_that_start_at_the_same_time_make_one(start_run: Start) -> None:
    """With different files, of which neither may undo half of the other's."""
    runs = [
        await start_run(
            start=False,
            config=ECHO + agent(name) + agent(f"{name}-2"),
            environment={"LOBU_ALLOW_MULTI_HOST": "1"},
        )
        for name in ("one", "two")
    ]
    admin(runs[0].database_url, "INSERT INTO organization VALUES ('hand')")
    async with trio.open_nursery() as nursery:
        for run in runs:
            nursery.start_soon(run.start)
    defaults = admin(runs[0].database_url, "SELECT organization_id, agent_id FROM agent WHERE is_default ORDER BY 1")
    assert [organization for organization, _ in defaults] == ["hand", "local"]
    enabled = admin(runs[0].database_url, "SELECT agent_id FROM agent WHERE organization_id = 'local' AND NOT disabled")
    assert {name for (name,) in enabled} in ({"one", "one-2"}, {"two", "two-2"})
    for run in runs:
        assert (await client_of(run).open()).key.startswith(str(defaults[1][1]))

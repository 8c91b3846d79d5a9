"""The pages' files as a browser gets them, and the stream behind the operations page."""

from __future__ import annotations

import json

import pytest
import trio

from edge.settings import EdgeSettings
from lobu_actors.gateway.status import ActorStatus, HostStatus, Latencies, Node
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.http_server import EventReader, Running, running

HOST = HostStatus(
    host_id="h1",
    name="one",
    draining=False,
    frozen=False,
    active_actors=7,
    running=1,
    workers_in_all=9,
    idle_workers=2,
    tree=Node("lobu", "supervisor", "running"),
    terminal=Latencies(10, ((100, ((3, 4),)),)),
    crash=Latencies(10),
    actors=(ActorStatus("echo_ann_acme", 0, True),),
)


@pytest.mark.parametrize("prefix", ["", "/lobu"])
async def test_pages_come_with_their_policy_and_are_kept_until_they_change(server: Running, prefix: str) -> None:
    async with server.client() as client:
        for path in ("/", "/ops", "/web/chat.js", "/web/purify.min.js", "/web/base.css"):
            answer = await client.get(prefix + path)
            assert answer.status_code == 200, path
            assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["Content-Encoding"] == "gzip"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            again = await client.get(prefix + path, headers={"If-None-Match": answer.headers["ETag"]})
            assert (again.status_code, again.content) == (304, b"")
            plain = await client.get(prefix + path, headers={"Accept-Encoding": "identity"})
            assert plain.content == answer.content
            assert "Content-Encoding" not in plain.headers
        assert (await client.get("/web/marked.LICENSE")).status_code == 404
        assert (await client.get("/web/..%2Fassets.py")).status_code == 404


@pytest.mark.parametrize("query", ["", "?a=b%20c"])
async def test_the_prefix_without_its_slash_leads_to_the_page(server: Running, query: str) -> None:
    """From where the browser is: a proxy in front may have this below a path, and under a name, of its own."""
    async with server.client() as client:
        answer = await client.get(f"/lobu{query}")
        assert answer.status_code == 308
        assert answer.headers["Location"] == f"./lobu/{query}"
        assert (await client.get(answer.url.join(answer.headers["Location"]))).content == (
            await client.get("/")
        ).content


def settings(**changes: float) -> EdgeSettings:
    return EdgeSettings(organization_id="acme", look_seconds=0.05, stop_grace_seconds=0.3, **changes)


async def first_look(server: Running, key: str) -> dict:
    reader = await EventReader.open(server, "/api/v1/ops/events", key=key)
    await reader.until(b"event: house")
    found = json.loads(reader.body.split(b"data: ", 1)[1].split(b"\n", 1)[0])
    await reader.close()
    return found


async def test_administrators_are_told_and_hosts_only_to_those_whose_they_are() -> None:
    async with running(await EdgeWorld.make(settings())) as server:
        world = server.world
        world.gateway.hosts = [HOST]
        ref = await world.conversation()
        await world.owner(ref)
        await world.message(ref)
        own = await first_look(server, world.admin_key)
        assert own["seesHosts"]
        assert own["hosts"][0]["tree"]["name"] == "lobu"
        assert own["hosts"][0]["terminal"]["slots"] == [[100, [[3, 4]]]]
        assert (own["totals"]["queued"], own["totals"]["running"]) == (1, 0)
        assert 0 <= own["totals"]["oldestOwedSeconds"] < 60
        assert [host["leases"] for host in own["leases"]] == [1]
        other = await first_look(server, world.other_key)
        assert not other["seesHosts"]
        assert other["leases"] == []
        assert other["totals"] == {"queued": 0, "running": 0, "oldestOwedSeconds": None}
        assert (other["hosts"][0]["hostId"], other["hosts"][0]["tree"]["name"]) == ("", "")
        assert (other["hosts"][0]["terminal"]["slots"], other["hosts"][0]["idleWorkers"]) == ([], 0)
        assert set(world.gateway.looks) == {"acme", "rival"}


async def test_nothing_is_asked_while_nobody_looks_and_only_so_many_may() -> None:
    async with running(await EdgeWorld.make(settings(max_lookers=1))) as server:
        world = server.world
        assert world.gateway.looks == []
        reader = await EventReader.open(server, "/api/v1/ops/events")
        await reader.until(b"event: house", 2)
        async with server.client() as client:
            refused = await client.get("/api/v1/ops/events")
            assert (refused.status_code, refused.json()["code"]) == (429, "TOO_MANY_STREAMS")
        await reader.close()
        with trio.fail_after(10):
            while True:  # until the server has seen that the reader is gone
                asked = len(world.gateway.looks)
                await trio.sleep(0.3)
                if asked == len(world.gateway.looks):
                    break
            reader = await EventReader.open(server, "/api/v1/ops/events")
            while b" 429 " in reader.head:  # it only had to wait for its turn
                await reader.close()
                reader = await EventReader.open(server, "/api/v1/ops/events")
        await reader.until(b"event: house")
        await reader.close()


async def test_a_server_that_drains_sends_its_lookers_away() -> None:
    async with running(await EdgeWorld.make(settings())) as server:
        reader = await EventReader.open(server, "/api/v1/ops/events")
        await reader.until(b"event: house")
        server.world.gateway.drain()
        assert b"event: drain" in await reader.to_end()
        await reader.close()

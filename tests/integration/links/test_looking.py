"""How hosts are, asked over links: each tells of itself, who cannot is left out, an older one breaks nothing."""

from __future__ import annotations

import msgspec
import pytest
import trio
from msgspec.structs import replace

from lobu_actors.gateway.link import router, wire
from lobu_actors.gateway.status import ActorStatus, HostStatus, Latencies, Node
from lobu_actors.store.memory import MemoryStore
from tests.fakes.linked_host import REF, LinkedHost, linked_host, until_linked

ANY = HostStatus(
    host_id="",
    name="",
    draining=False,
    frozen=False,
    active_actors=1,
    running=1,
    workers_in_all=1,
    idle_workers=0,
    tree=Node("lobu", "supervisor", "running", 0, (Node("edge", "child", "backoff", 3),)),
    terminal=Latencies(10, ((100, ((3, 4), (5, 6))),)),
    crash=Latencies(10),
    actors=(ActorStatus(REF.conversation_id, 2, True),),
)


def status(host: LinkedHost) -> HostStatus:
    return replace(ANY, host_id=host.host_id)


async def test_every_host_tells_of_itself_and_is_asked_about_one_organization() -> None:
    store = MemoryStore()
    async with linked_host(store, "a") as a, linked_host(store, "b") as b:
        for host in (a, b):
            host.local.hosts = [status(host)]
            await host.join()
        await until_linked(a, b)
        found = {one.host_id: one for one in await a.router.look("acme")}
        assert found == {"a": status(a), "b": status(b)}
        assert a.local.looks == b.local.looks == ["acme"]


async def test_only_so_many_hosts_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "MOST_LOOKED_AT", 2)
    store = MemoryStore()
    async with linked_host(store, "a") as a, linked_host(store, "b") as b, linked_host(store, "c") as c:
        for host in (a, b, c):
            host.local.hosts = [status(host)]
            await host.join()
        await until_linked(a, b)
        await until_linked(a, c)
        assert len(await a.router.look("acme")) == 2
        assert len(b.local.looks) + len(c.local.looks) == 1


async def test_who_cannot_tell_is_left_out_in_time() -> None:
    store = MemoryStore()
    async with linked_host(store, "a") as a, linked_host(store, "b") as b:
        a.local.hosts = [status(a)]
        for host in (a, b):
            await host.join()
        await until_linked(a, b)
        with trio.fail_after(5):
            assert [one.host_id for one in await a.router.look("acme")] == ["a"]  # `b` has nothing to tell


def test_an_older_host_answers_of_a_conversation_and_so_nothing_of_itself() -> None:
    """What it knows of the call are the fields that there were; what it answers lacks the new one."""
    call = wire.encode(wire.Call(1, "status", REF, wire.LOOK))
    assert msgspec.json.decode(call)["method"] == "status"
    old = wire.Reply(1, done=True, status=wire.Status(False, 0, 0, 0))
    answered = wire.from_server(wire.encode(old))
    assert isinstance(answered, wire.Reply)
    assert answered.host is None

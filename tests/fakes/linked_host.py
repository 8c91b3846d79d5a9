"""Hosts with real links on real sockets, over one memory store, each with a gateway that a test plays by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from edge.host_tokens import JwtHostTokens
from edge.tokens import JwtKeys
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.feed import Feed
from lobu_actors.gateway.link.peers import Peers
from lobu_actors.gateway.link.router import Router
from lobu_actors.gateway.owners import Owners
from lobu_actors.gateway.worker_door import Joining, WorkerPipe
from lobu_actors.gateway.writer import FeedWriter
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.memory import MemoryStore
from supervisor.links.server import LinkServer, Listen
from tests.fakes.gateway import FakeGateway

TOKENS = JwtHostTokens(JwtKeys.from_secrets(["s" * 32]))
REF = ConversationRef("acme", "echo", "echo_ann_acme")


@attrs.define
class FakePlaces:
    """Of conversations that have places of these types, and were asked to give one up."""

    held: set[Joining] = attrs.field(factory=set)
    asked: list[Joining] = attrs.field(factory=list)

    async def attach(self, pipe: WorkerPipe, _joining: Joining, /) -> None:
        await pipe.close(1013, "no workers here")

    def give_up(self, joining: Joining, /) -> bool:
        self.asked.append(joining)
        return joining in self.held


@attrs.define
class LinkedHost:
    host_id: str
    store: MemoryStore
    local: FakeGateway
    owners: Owners
    server: LinkServer
    peers: Peers
    router: Router
    hints: list[tuple[ConversationRef, str | None]]
    context: ChildContext
    places: FakePlaces
    let_go: trio.Event  # what is slowly read
    hint_deadlines: list[float]

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.server.port}"

    def own(self, ref: ConversationRef, epoch: int, last_seq: int = 0) -> FeedWriter:
        """As an actor here does that takes the lease."""
        writer = FeedWriter(self.local.feeds.hold(ref), epoch, last_seq)
        self.owners.took(ref, epoch)
        return writer

    async def join(self, url: str | None = None) -> None:
        """Tell the others where it is; `url`: by another way."""
        await self.store.register_host(
            self.host_id, name=self.host_id, link_url=url or self.url, version="1", ttl_seconds=1e6
        )


SLOWLY_READ = "slow"  # a message id


@asynccontextmanager
async def linked_host(store: MemoryStore, host_id: str, *, unix_path: Path | None = None) -> AsyncIterator[LinkedHost]:
    local, owners = FakeGateway(), Owners()
    hints: list[tuple[ConversationRef, str | None]] = []
    let_go = trio.Event()
    hint_deadlines: list[float] = []

    async def hinted(ref: ConversationRef, message_id: str | None) -> None:
        hint_deadlines.append(trio.current_effective_deadline())
        if message_id == SLOWLY_READ:
            await let_go.wait()
        hints.append((ref, message_id))

    listen, places = Listen("127.0.0.1", 0, unix_path), FakePlaces()
    server = LinkServer(listen, lambda: host_id, TOKENS, local, local.feeds, owners, hinted, places)
    peers = Peers(lambda: host_id, store.find_peers, TOKENS, local.feeds, owners)
    router = Router(local, owners, peers, store.find_owner)
    started = trio.Event()
    context = ChildContext("links in", started.set)
    host = LinkedHost(
        host_id, store, local, owners, server, peers, router, hints, context, places, let_go, hint_deadlines
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, context)
        await started.wait()
        nursery.start_soon(peers.run)
        yield host
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = trio.current_time() + seconds
    while not condition():
        assert trio.current_time() < deadline, f"not within {seconds:g} s"
        await trio.sleep(0.002)


async def until_linked(host: LinkedHost, other: LinkedHost) -> None:
    await until(lambda: host.peers.client(other.host_id) is not None)


async def until_text(feed: Feed, text: str) -> None:
    await until(lambda: feed.text is not None and feed.text.whole() == text)

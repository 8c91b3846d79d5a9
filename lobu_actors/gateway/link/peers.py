"""The links of one process to every other live host. Owns which there are; how one is kept up is the client's matter.

In the core and not in the supervisor, since an edge process of its own keeps the same links.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec
import structlog
import trio

from lobu_actors.gateway.feed import Feeds
from lobu_actors.gateway.link.auth import HostTokens
from lobu_actors.gateway.link.client import LinkClient, LinkPhase
from lobu_actors.gateway.link.mirrors import Mirrors
from lobu_actors.gateway.owners import Owners
from lobu_actors.gateway.worker_door import Joining
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.link_protocol import Peer
from lobu_actors.store.link_records import Links, PeerLink

log = structlog.get_logger(__name__)

REFRESH_SECONDS = 1.0
WORST_LINKS = 16  # told one by one; more would make each renewal of a host's row longer
FindPeers = Callable[[str], Awaitable[list[Peer]]]


class _Kept(msgspec.Struct, frozen=True):
    client: LinkClient
    scope: trio.CancelScope


class Peers:
    """`me` gives this process's host id, which may change; `find` the other live hosts."""

    def __init__(
        self,
        me: Callable[[], str],
        find: FindPeers,
        tokens: HostTokens,
        feeds: Feeds,
        owners: Owners,
        *,
        refresh_seconds: float = REFRESH_SECONDS,
    ) -> None:
        self._refresh_seconds = refresh_seconds
        self.mirrors = Mirrors(feeds, owners, self._all_linked)
        self._me = me
        self._find = find
        self._tokens = tokens
        self._kept: dict[str, _Kept] = {}
        self._known: dict[str, Peer] = {}
        self._as = ""  # the host id under which the links were made

    async def run(self) -> None:
        """Until cancelled; then no link is left."""
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    await self._refresh(nursery)
                    await trio.sleep(self._refresh_seconds)
        finally:
            for host_id in list(self._kept):
                self._let_go(host_id)

    def client(self, host_id: str | None) -> LinkClient | None:
        """The link to a host, when it is up."""
        kept = self._kept.get(host_id) if host_id is not None else None
        return kept.client if kept is not None and kept.client.up else None

    def clients(self) -> list[LinkClient]:
        """The links that are up."""
        return [kept.client for kept in self._kept.values() if kept.client.up]

    async def give_up_place(self, joining: Joining) -> bool:
        """As that of each host to which a link is up, side by side."""
        held = False

        async def ask(client: LinkClient) -> None:
            nonlocal held
            held = await client.give_up_place(joining) or held

        async with trio.open_nursery() as nursery:
            for client in self.clients():
                nursery.start_soon(ask, client)
        return held

    @property
    def phases(self) -> Mapping[str, LinkPhase]:
        """Of every other live host; those that listen for no links are DOWN."""
        kept = self._kept
        return {host_id: kept[host_id].client.phase if host_id in kept else LinkPhase.DOWN for host_id in self._known}

    def links(self) -> Links:
        """To all other live hosts, as they are now."""
        found = [
            PeerLink(host_id, client is not None, None if client is None else client.lag_seconds)
            for host_id, client in ((host_id, self.client(host_id)) for host_id in self._known)
        ]
        up = sum(link.up for link in found)
        found.sort(key=lambda link: (link.up, -(link.lag_seconds or 0), link.host_id))
        return Links(up, len(found) - up, tuple(found[:WORST_LINKS]))

    def _all_linked(self) -> bool:
        return all(self.client(host_id) is not None for host_id in self._known)

    async def _refresh(self, nursery: trio.Nursery) -> None:
        me = self._me()
        if me != self._as:
            for host_id in list(self._kept):
                self._let_go(host_id)
            self._known, self._as = {}, me
        if not me:
            return
        try:
            found = {peer.host_id: peer for peer in await self._find(me)}
        except StoreUnavailable as error:
            log.warning("peers not looked up, the store is away", error=str(error))
            return
        for host_id in list(self._kept):
            peer = found.get(host_id)
            if peer is None or peer.link_url != self._kept[host_id].client.url:
                self._let_go(host_id)
        for host_id, peer in found.items():
            if host_id not in self._kept and peer.link_url is not None:
                self._keep(nursery, peer.host_id, peer.link_url)
        if found != self._known:
            self._known = found
            self.mirrors.judge_all()

    def _keep(self, nursery: trio.Nursery, host_id: str, url: str) -> None:
        client = LinkClient(host_id, url, self._as, self._tokens, self.mirrors)
        kept = self._kept[host_id] = _Kept(client, trio.CancelScope())
        self.mirrors.add(client)
        nursery.start_soon(_run, kept)

    def _let_go(self, host_id: str) -> None:
        kept = self._kept.pop(host_id)
        kept.scope.cancel()
        self.mirrors.remove(kept.client)


async def _run(kept: _Kept) -> None:
    with kept.scope:
        await kept.client.run()

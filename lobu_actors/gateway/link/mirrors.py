"""What is read in this process of conversations that others own. Owns which peers are asked for what, and the mirrors.

Every peer is asked about every conversation that is read here and not owned here; whoever owns it tells, whenever it
does. So no owner has to be looked up or chased: when a conversation goes from one host to another, the old owner says
that it is not its any more and the new one begins to tell, in whatever order, and the lease's epoch decides whom the
feed believes. Rejected: to look the owner up in the store and subscribe there, which costs a read a reader, misses an
owner that takes over between the two, and has to be done again at every hand-over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import trio

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.feed import Feed, Feeds
from lobu_actors.gateway.link import wire
from lobu_actors.gateway.link.client import FollowPort, LinkClient
from lobu_actors.gateway.link.mirror import Mirror
from lobu_actors.gateway.owners import Owners

EXPECT_SECONDS = 0.25  # how long a new reader waits for what peers say before it reads the log


@attrs.define
class _Read:
    """A conversation that has readers here."""

    feed: Feed
    readers: int = 0
    mirrors: dict[LinkClient, Mirror] = attrs.field(factory=dict)
    unanswered: set[LinkClient] = attrs.field(factory=set)


class Mirrors(FollowPort):
    """`all_linked` says whether every live host that could be an owner is linked."""

    def __init__(self, feeds: Feeds, owners: Owners, all_linked: Callable[[], bool]) -> None:
        self._feeds = feeds
        self._owners = owners
        self._all_linked = all_linked
        self._clients: list[LinkClient] = []
        self._read: dict[ConversationRef, _Read] = {}
        owners.on_change.append(self._owner_changed)

    @contextmanager
    def reading(self, ref: ConversationRef) -> Iterator[Feed]:
        """The feed, and peers asked about it as long as somebody reads it here."""
        with self._feeds.reading(ref) as feed:
            read = self._read.get(ref)
            if read is None:
                read = self._read[ref] = _Read(feed)
                self._follow(ref, read)
            read.readers += 1
            try:
                yield feed
            finally:
                read.readers -= 1
                if not read.readers:
                    del self._read[ref]
                    self._unfollow(ref, read)
                    feed.unheard = False

    def add(self, client: LinkClient) -> None:
        self._clients.append(client)
        for ref, read in self._read.items():
            if self._owners.epoch_here(ref) is None:
                read.mirrors[client] = Mirror(ref, read.feed)
                client.follow(ref)
        self.judge_all()

    def remove(self, client: LinkClient) -> None:
        """Its link is down for good."""
        self._clients.remove(client)
        for read in self._read.values():
            mirror = read.mirrors.pop(client, None)
            if mirror is not None:
                mirror.end()
        self.judge_all()

    def judge_all(self) -> None:
        """A link came or went: of what is nothing heard now?"""
        all_linked = self._all_linked()
        for ref, read in self._read.items():
            self._judge(ref, read, all_linked)

    # --- what clients say

    def link_is_up(self, client: LinkClient) -> None:
        self.judge_all()

    def link_is_down(self, client: LinkClient) -> None:
        for read in self._read.values():
            if client in read.mirrors:
                read.mirrors[client].end()
                self._answered(read, client)
        self.judge_all()

    def told(self, client: LinkClient, ref: ConversationRef, message: wire.Message) -> None:
        read = self._read.get(ref)
        mirror = None if read is None else read.mirrors.get(client)
        if read is None or mirror is None:
            return
        if isinstance(message, wire.Elsewhere):
            mirror.end()
            self._owners.heard_not(ref, client.host_id)
            self._answered(read, client)
        else:
            mirror.take(message)
        if isinstance(message, wire.Elsewhere | wire.Live):
            if mirror.live:
                self._owners.heard(ref, client.host_id)
            self._judge(ref, read, self._all_linked())

    def owner_is(self, ref: ConversationRef, host_id: str) -> None:
        self._owners.heard(ref, host_id)

    # --- whom to ask

    def _follow(self, ref: ConversationRef, read: _Read) -> None:
        if self._owners.epoch_here(ref) is None:
            for client in self._clients:
                read.mirrors[client] = Mirror(ref, read.feed)
                client.follow(ref)
            read.unanswered = {client for client in self._clients if client.up}
            if read.unanswered:
                read.feed.expected_until = trio.current_time() + EXPECT_SECONDS
        self._judge(ref, read, self._all_linked())

    def _unfollow(self, ref: ConversationRef, read: _Read) -> None:
        for client, mirror in read.mirrors.items():
            client.unfollow(ref)
            mirror.end()
        read.mirrors.clear()
        read.unanswered.clear()
        read.feed.settle()

    def _owner_changed(self, ref: ConversationRef) -> None:
        read = self._read.get(ref)
        if read is None:
            return
        if self._owners.epoch_here(ref) is not None:
            self._unfollow(ref, read)
            self._judge(ref, read, self._all_linked())
        else:
            self._follow(ref, read)

    def _answered(self, read: _Read, client: LinkClient) -> None:
        read.unanswered.discard(client)
        if not read.unanswered:
            read.feed.settle()

    def _judge(self, ref: ConversationRef, read: _Read, all_linked: bool) -> None:
        here = self._owners.epoch_here(ref) is not None
        heard = here or all_linked or any(mirror.live for mirror in read.mirrors.values())
        if read.feed.unheard == heard:
            read.feed.unheard = not heard
            read.feed.wake()

"""Whatever is written, told late or never told, and wherever readers leave and come back: their view is exact.

A reader's view is the durable events it saw, and per message the text it put together. A model of what was said says
what that must be: no gap, no duplicate, no text behind its terminal event, and nothing missing once all is quiet.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack
from unittest import mock

import attrs
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import edge.subscription
import lobu_actors.gateway.feed
from edge.settings import EdgeSettings
from edge.subscription import Subscription
from lobu_actors.contract.events import EventType, parse_cursor
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.memory import MemoryStore
from lobu_actors.store.records import Turn
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.gateway import FakeGateway, Owner
from tests.fakes.http_server import Frame, parse_frames

SETTINGS = EdgeSettings(replay_page_events=2)
TERMINALS = {"complete", "agent-error", "cancelled"}
PING = b": ping\n\n"


@attrs.define
class View:
    """What a client knows. Copied after each frame, so that it can come back with any of its pasts."""

    last_id: str | None = None
    seq: int = 0
    texts: dict[str, str] = attrs.field(factory=dict)
    ended: set[str] = attrs.field(factory=set)


@attrs.define
class Reader:
    subscription: Subscription
    held: ExitStack
    view: View


class Scenario:
    """The conversation, what was truly said in it, and its readers."""

    def __init__(self, store: MemoryStore, gateway: FakeGateway, ref: ConversationRef, owner: Owner) -> None:
        self.store, self.gateway, self.ref, self.owner = store, gateway, ref, owner
        self.queued: list[Turn] = []
        self.running: Turn | None = None
        self.attempt = 1
        self.said: dict[tuple[str, int], str] = {}
        self.pasts: list[View] = [View()]
        self.readers: list[Reader] = []
        self.questions = 0
        self.lost = False  # something was committed of which this feed is never told

    async def step(self, world: EdgeWorld, name: str, number: int, text: str) -> None:
        owner = self.owner
        if name == "accept" and len(self.queued) < 4:
            self.queued.append(await world.message(self.ref))
        elif name == "say" and self.running is not None and self.may_talk:
            self.said[self.running.message_id, self.attempt] += text
            owner.say(text)
        elif name == "status" and self.may_talk:
            owner.status(text)
        elif name == "read":
            await self.read(number)
        elif name == "join":
            await self.join(self.pasts[-1 - number % len(self.pasts)])
        elif name == "tell":
            owner.tell()
            self.forget_ended()
        elif not owner.untold:
            await self.move(name, number)

    @property
    def may_talk(self) -> bool:
        """An actor shows nothing between a commit and the telling, nor once another host has written for it."""
        return self.running is not None and not self.owner.untold and not self.lost

    async def move(self, name: str, number: int) -> None:
        """Steps of an owner that has told all that it committed."""
        owner = self.owner
        if name == "begin" and self.running is None and self.queued:
            self.running, self.attempt = self.queued.pop(0), 1
            await self.begin()
        elif name == "end" and self.running is not None:
            kind = [EventType.COMPLETE, EventType.AGENT_ERROR, EventType.CANCELLED][number % 3]
            await owner.commit_end(self.running, kind)
        elif name == "retry" and self.running is not None:
            await owner.requeue(self.running)
            self.attempt += 1
            await self.begin()
        elif name == "drop" and self.queued:
            await owner.commit_queued_end(self.queued.pop())
        elif name == "question" and self.running is not None:
            self.questions += 1
            await owner.commit_question(self.running, f"q{self.questions}")
        elif name == "lose" and self.running is not None:
            self.lost = True
            self.questions += 1
            await owner.commit_question(self.running, f"q{self.questions}")
            owner.last_seq = owner.untold.pop().seq

    async def begin(self) -> None:
        assert self.running is not None
        self.lost = False
        self.said[self.running.message_id, self.attempt] = ""
        await self.owner.begin(self.running, self.attempt)

    def forget_ended(self) -> None:
        if self.owner.text is None:
            self.running = None

    # --- readers

    async def join(self, past: View) -> None:
        if len(self.readers) >= 3:
            self.readers.pop(0).held.close()
        held = ExitStack()
        feed = held.enter_context(self.gateway.open_feed(self.ref))
        conversation = await self.store.find_conversation("acme", self.ref.conversation_id)
        assert conversation is not None
        start = parse_cursor(past.last_id) if past.last_id else None
        view = copy.deepcopy(past)
        self.readers.append(Reader(Subscription(conversation, self.store, feed, SETTINGS, start=start), held, view))

    async def read(self, number: int) -> None:
        for reader in self.readers[number % 3 : number % 3 + 1]:
            self.look(reader, await reader.subscription.next_chunk())

    def look(self, reader: Reader, chunk: bytes | None) -> None:
        assert chunk is not None
        for frame in parse_frames(chunk):
            self.see(reader.view, frame)
            self.pasts.append(copy.deepcopy(reader.view))

    def see(self, view: View, frame: Frame) -> None:
        if frame.event in {"connected", "status", "error"}:
            return
        assert frame.event not in {"gap", "drain", "closed"}, frame
        message_id = frame.data["messageId"]
        if frame.event == "output":
            self.see_output(view, message_id, frame)
        elif frame.event == "restart":
            view.texts[message_id] = ""
        if frame.id is None:
            return
        view.last_id = frame.id
        if frame.event != "output":
            assert int(frame.id.split(".")[0]) == view.seq + 1, "durable events without gap and duplicate"
            view.seq += 1
        if frame.event in TERMINALS:
            assert message_id not in view.ended
            view.ended.add(message_id)
            assert frame.event == "agent-error" or frame.data["finalText"].startswith(view.texts.get(message_id, ""))

    def see_output(self, view: View, message_id: str, frame: Frame) -> None:
        assert message_id not in view.ended, "no text behind the terminal event"
        cursor = parse_cursor(frame.id or "")
        assert cursor.seq == view.seq
        assert cursor.attempt is not None
        said = self.said[message_id, cursor.attempt]
        view.texts[message_id] = view.texts.get(message_id, "") + frame.data["content"]
        assert view.texts[message_id] == said[: cursor.offset], "text without gap and duplicate"

    async def play(self, world: EdgeWorld, steps: list[tuple[str, int, str]]) -> None:
        """All steps, and then what must hold at rest, while time passes for those who wait."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.gateway.timers.fire)
            for name, number, text in steps:
                await self.step(world, name, number, text)
            await self.quiesce()
            nursery.cancel_scope.cancel()

    async def quiesce(self) -> None:
        """All is told; every reader gets everything, if need be by its slow poll."""
        self.owner.tell()
        self.forget_ended()
        await self.join(View())
        for reader in self.readers:
            quiet = 0
            while quiet < 8:  # pings; longer than the slowest poll
                chunk = await reader.subscription.next_chunk()
                quiet = quiet + 1 if chunk == PING else 0
                if chunk != PING:
                    self.look(reader, chunk)
            log = await self.store.read_events(self.ref, 1, limit=1000)
            assert reader.view.seq == len(log)
            if self.running is not None:
                message_id = self.running.message_id
                assert reader.view.texts.get(message_id, "") == self.said[message_id, self.attempt]
            reader.held.close()


NAMES = [
    *["say"] * 4, *["read"] * 6, *["tell"] * 3, *["join"] * 3, "accept", "accept", "begin", "begin", "end", "status",
    "question", "question", "retry", "drop", "lose",
]  # fmt: skip
STEPS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(0, 30), st.sampled_from(["a", "bcd", "é\n", "😀x", "12345678"])),
    min_size=20,
    max_size=80,
)


async def play(steps: list[tuple[str, int, str]]) -> None:
    world = await EdgeWorld.make(SETTINGS)
    ref = await world.conversation()
    scenario = Scenario(world.store, world.gateway, ref, await world.owner(ref))
    prelude = [("accept", 0, ""), ("begin", 0, ""), ("join", 0, ""), ("read", 0, "")]
    await scenario.play(world, [*prelude, *steps])


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_every_reader_sees_exactly_what_happened(steps: list[tuple[str, int, str]]) -> None:
    with (
        mock.patch.object(lobu_actors.gateway.feed, "KEPT_ITEMS", 3),
        mock.patch.object(edge.subscription, "FRAME_CHARS", 3),
    ):
        trio.run(play, steps, clock=trio.testing.MockClock(autojump_threshold=0))

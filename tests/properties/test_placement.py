"""Where a conversation begins: the rule, whatever the hosts; and who applies it, on the store in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import HostState
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.membership_protocol import HostLoad
from lobu_actors.store.memory import MemoryStore
from supervisor.placement import MUCH_FULLER_RATIO, MUCH_FULLER_RUNS, Placing, place

ACTIVE, DRAINING = HostState.ACTIVE, HostState.DRAINING
NAMES = ("a", "b", "c", "d")
LOADS = st.lists(
    st.builds(HostLoad, st.sampled_from(NAMES), st.sampled_from((ACTIVE, ACTIVE, DRAINING)), st.integers(0, 60)),
    unique_by=lambda load: load.host_id,
    max_size=4,
)


@given(st.sampled_from(NAMES), LOADS)
def test_the_rule(accepting: str, hosts: list[HostLoad]) -> None:
    taking = {load.host_id: load.runs for load in hosts if load.state is ACTIVE}
    chosen = place(accepting, hosts)
    assert (chosen is None) == (not taking), "somebody takes it whenever somebody can"
    assert chosen is None or chosen in taking, "never one that drains or is not alive"
    if chosen != accepting and chosen is not None:
        assert taking[chosen] == min(taking.values()), "it goes to the emptiest"
        if accepting in taking:
            more = taking[accepting] - taking[chosen]
            assert more >= MUCH_FULLER_RUNS
            assert taking[accepting] >= MUCH_FULLER_RATIO * taking[chosen]
    assert chosen == place(accepting, hosts[::-1]), "all hosts that know the same choose the same"


@given(st.sampled_from(NAMES), LOADS)
def test_a_moved_conversation_is_not_moved_on(accepting: str, hosts: list[HostLoad]) -> None:
    """With it counted, the host that got it keeps it: nothing goes back and forth."""
    chosen = place(accepting, hosts)
    if chosen not in (None, accepting):
        after = [replace(load, runs=load.runs + (load.host_id == chosen)) for load in hosts]
        assert place(chosen, after) == chosen


@pytest.mark.parametrize(
    ("here", "there", "stays"),
    [(7, 0, True), (8, 0, False), (15, 8, True), (16, 8, False), (100, 51, True), (100, 50, False), (0, 100, True)],
)
def test_much_fuller(here: int, there: int, stays: bool) -> None:
    hosts = [HostLoad("here", ACTIVE, here), HostLoad("there", ACTIVE, there)]
    assert place("here", hosts) == ("here" if stays else "there")


@pytest.mark.parametrize(
    ("here", "there", "third", "chosen"),
    [
        ((2, 0), (7, 1), (9, 5), "there"),  # room counts, then runs
        ((2, 0), (1, 0), (9, 5), "third"),
        ((9, 5), (0, 0), (3, 5), "here"),  # which has none is not much emptier
        ((2, 0), (1, 0), (3, 0), "here"),
        ((20, 0), (1, 0), (3, 0), "there"),  # all are full: as if nobody had said it
        ((2, None), (1, 5), (3, 5), "here"),
        ((2, 0), (4, None), (3, 0), "there"),  # who does not say may have room
    ],
)
def test_who_has_no_room_leaves_it_to_one_that_has(
    here: tuple[int, int | None], there: tuple[int, int | None], third: tuple[int, int | None], chosen: str
) -> None:
    given = {"here": here, "there": there, "third": third}
    hosts = [HostLoad(name, ACTIVE, *load) for name, load in given.items()]
    assert place("here", hosts) == place("here", hosts[::-1]) == chosen


REF = ConversationRef("acme", "echo", "echo_ann_acme")
OTHER = ConversationRef("acme", "echo", "echo_bob_acme")


class Told:
    """Takes hints for the hosts that it has a link to."""

    def __init__(self, *linked: str) -> None:
        self.linked = linked
        self.hints: list[str] = []
        self.words: list[str] = []

    def leave_word(self, host_id: str, ref: ConversationRef) -> None:
        self.words.append(host_id)

    async def forward(self, host_id: str, ref: ConversationRef) -> bool:
        self.hints.append(host_id)
        return host_id in self.linked


@attrs.define
class Here:
    """Implements `Occupancy`."""

    number: int
    free: int = 100
    waits: list[ConversationRef] = attrs.field(factory=list)
    placed_again: list[ConversationRef] = attrs.field(factory=list)

    def runs(self) -> int:
        return self.number

    def room(self) -> int:
        return self.free

    def waiting(self) -> list[ConversationRef]:
        return self.waits

    def place_again(self, ref: ConversationRef) -> None:
        self.placed_again.append(ref)


class World:
    """Host `here` with some runs, and `there` with none."""

    def __init__(self, runs: int, told: Told) -> None:
        self.store = MemoryStore()
        self.membership: Any = SimpleNamespace(host_id="here", state=ACTIVE)
        self.here = Here(runs)
        self.placing = Placing(self.store, self.membership, self.here)
        self.placing.forward = told

    async def begin(self, *hosts: str) -> None:
        for host in hosts:
            await self.store.register_host(host, name=host, link_url=None, version="1", ttl_seconds=600)
        await self.look()

    async def look(self) -> None:
        """Have it read the hosts once."""
        context = ChildContext("placement", lambda: None)
        context.stopping.set()
        await self.placing.run(context)
        await self.placing._look()


async def test_it_stays_where_it_was_accepted() -> None:
    world = World(0, told := Told("there"))
    assert not await world.placing.goes_elsewhere(REF), "before it knows any host"
    await world.begin("here", "there")
    assert not await world.placing.goes_elsewhere(REF)
    assert told.hints == []


async def test_a_much_fuller_host_leaves_it_to_one_that_took_the_hint() -> None:
    world = World(20, told := Told("there"))
    await world.begin("here", "there")
    assert await world.placing.goes_elsewhere(REF)
    assert told.hints == ["there"]
    told.linked = ()
    assert not await world.placing.goes_elsewhere(OTHER), "nobody would begin it"
    assert told.words == [], "it begins here"


async def test_what_was_sent_counts_until_the_figures_show_it() -> None:
    world = World(20, told := Told("there"))
    await world.begin("here", "there")
    refs = [ConversationRef("acme", "echo", f"echo_{number}_acme") for number in range(30)]
    sent = [await world.placing.goes_elsewhere(ref) for ref in refs]
    assert sent == [True] * 11 + [False] * 19, "with 11 more there, 20 is not twice as much"
    assert len(told.hints) == 11


async def test_a_full_host_leaves_it_to_one_with_room() -> None:
    world = World(1, told := Told("there"))
    world.here.free = 0
    await world.begin("here", "there")
    await world.store.renew_host("there", ttl_seconds=600, state=ACTIVE, room=1)
    await world.look()
    assert await world.placing.goes_elsewhere(REF)
    assert not await world.placing.goes_elsewhere(OTHER), "the room there is promised"
    assert told.hints == ["there"]


async def test_what_another_host_was_told_of_does_not_begin_here_beside_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World(1, Told("there"))
    world.here.free = 0
    await world.begin("here", "there")
    await world.store.renew_host("there", ttl_seconds=6000, state=ACTIVE, room=1)
    await world.look()
    await world.placing.released(REF)
    assert await world.placing.goes_elsewhere(REF), "although the room there is promised, to this very one"
    await world.store.ensure_organization("acme")
    await world.store.open_conversation(REF, "ann")
    await world.store.activate(REF, "there")
    assert not await world.placing.goes_elsewhere(REF), "its owner is told of what comes now"
    await trio.sleep(5)
    world.here.free = 1
    assert not await world.placing.goes_elsewhere(REF)


async def test_what_waits_here_is_placed_again_once_while_another_has_room(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World(1, Told("there"))
    world.here.free, world.here.waits = 0, [REF, OTHER]
    await world.begin("here", "there")
    assert world.here.placed_again == [], "the other does not say that it has room"
    await world.store.renew_host("there", ttl_seconds=6000, state=ACTIVE, room=1)
    await world.look()
    assert world.here.placed_again == [REF], "as many as there is room for"
    await world.look()
    await world.look()
    assert world.here.placed_again == [REF, OTHER], "who came back has its place in the line"
    await world.placing.released(REF)  # which the other takes, and is full at last
    await world.look()
    assert world.here.placed_again == [REF, OTHER]
    await trio.sleep(5)
    await world.look()
    assert world.here.placed_again == [REF, OTHER, REF], "who comes again later is placed anew"
    await trio.sleep(700)
    await world.look()
    assert world.here.placed_again[3:] == [REF]


async def test_what_is_owned_stays() -> None:
    world = World(20, told := Told("there"))
    await world.begin("here", "there", "third")
    await world.store.ensure_organization("acme")
    await world.store.open_conversation(REF, "ann")
    await world.store.activate(REF, "third")
    assert not await world.placing.goes_elsewhere(REF)
    assert told.hints == []


@pytest.mark.parametrize("linked", [("there",), ()])
async def test_a_draining_host_begins_nothing(linked: tuple[str, ...]) -> None:
    world = World(0, told := Told(*linked))
    world.membership.state = DRAINING
    await world.begin("here", "there")
    assert world.placing.draining
    assert await world.placing.goes_elsewhere(REF)
    await world.placing.released(REF)
    assert told.hints == ["there", "there"]
    assert told.words == ([] if linked else ["there", "there"]), "through the store where there is no link"
    await world.store.declare_host_dead("there")
    await world.look()
    assert await world.placing.goes_elsewhere(REF), "it waits for whoever comes"
    assert len(told.hints) == 2


async def test_peers_hurry_when_a_host_drains_or_is_gone(autojump_clock: trio.testing.MockClock) -> None:
    world = World(0, Told())
    await world.begin("here", "there", "third")
    assert not world.placing.in_a_hurry()
    await world.store.drain_host("there")
    await world.look()
    assert world.placing.in_a_hurry()
    await world.store.declare_host_dead("there")
    await world.look()
    await trio.sleep(10)
    assert not world.placing.in_a_hurry(), "for a while only"
    await world.store.declare_host_dead("third")  # so fast that nobody saw it drain
    world.placing._learn(await world.store.find_loads())
    assert world.placing.in_a_hurry()

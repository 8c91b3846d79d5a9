"""On which host a conversation begins that nobody owns. `place` is the rule; `Placing` knows the hosts and applies it.

The host that accepted the message, unless it drains, is much fuller than another, or has no room for a worker where
another has: its edge and its readers are there already. Much fuller: at least MUCH_FULLER_RATIO times the runs of the
emptiest host, and MUCH_FULLER_RUNS more. What is owned stays where it is, but for what waits for a worker's place: that
is given up once, to be placed again.

Nothing here is needed for correctness. Figures are seconds old; two hosts may disagree for as long, and then the lease
decides. So a host leaves a conversation to another one only when that one has taken the hint, or when it drains itself
and must not begin anything: then the others' sweepers find what is owed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import structlog
import trio
from msgspec.structs import replace

from lobu_actors import telemetry
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import HostState
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.membership_protocol import HostLoad
from lobu_actors.store.protocol import Store
from supervisor.membership import Membership
from supervisor.occupancy import Occupancy

log = structlog.get_logger(__name__)

MUCH_FULLER_RATIO = 2.0
MUCH_FULLER_RUNS = 8
REFRESH_SECONDS = 1.0
SENT_SECONDS = 3.0  # until what was sent to a host shows in its figures: its renewal, and our look at it
GIVEN_UP_SECONDS = 600.0  # longer than anything waits for a place
HURRY_SECONDS = 4.0  # how long peers sweep for what is young too, once a host drains or is gone


def place(accepting: str, hosts: Sequence[HostLoad]) -> str | None:
    """The host that is to begin a conversation which nobody owns. None: no live host takes any.

    `hosts` are the live ones, each once. One that drains is never chosen, nor is one that is not among them.
    """
    taking = [host for host in hosts if host.state is HostState.ACTIVE]
    if not taking:
        return None
    emptiest = min(taking, key=lambda host: (host.is_full, host.runs, host.host_id))
    here = next((host for host in taking if host.host_id == accepting), None)
    if here is None or (here.is_full and not emptiest.is_full):
        return emptiest.host_id
    return emptiest.host_id if _is_much_fuller(here, emptiest) else accepting


def _is_much_fuller(one: HostLoad, other: HostLoad) -> bool:
    return one.runs >= MUCH_FULLER_RATIO * other.runs and one.runs - other.runs >= MUCH_FULLER_RUNS


def _with(host: HostLoad, more: int) -> HostLoad:
    """As it will be with so many more."""
    return replace(host, runs=host.runs + more, room=None if host.room is None else host.room - more)


class Forward(Protocol):
    """How a hint reaches another host."""

    async def forward(self, host_id: str, ref: ConversationRef) -> bool:
        """Tell a host that this conversation owes something. True: it has taken the hint. Bounded; never raises."""
        ...

    def leave_word(self, host_id: str, ref: ConversationRef) -> None:
        """The same where `forward` did not reach it: by way of the store, soon, and with nobody to say that it came."""
        ...


class NoForward:
    """Of a host without links: others find by themselves what is owed. Implements `Forward`."""

    async def forward(self, host_id: str, ref: ConversationRef) -> bool:
        return False

    def leave_word(self, host_id: str, ref: ConversationRef) -> None:
        pass


class Placing:
    """A supervised child; implements `conversation.placement.Placement`."""

    def __init__(self, store: Store, membership: Membership, here: Occupancy) -> None:
        self.forward: Forward = NoForward()
        self._store = store
        self._membership = membership
        self._here = here
        self._hosts: list[HostLoad] = []
        self._sent: deque[tuple[float, str, ConversationRef]] = deque()  # when, to which host, and what
        self._hurry_until = 0.0
        self._given_up: dict[ConversationRef, float] = {}  # in order to be placed again, and when

    async def run(self, context: ChildContext) -> None:
        self._hosts = []
        context.started()
        while not context.stopping.is_set():
            await self._look()
            with trio.move_on_after(REFRESH_SECONDS):
                await context.stopping.wait()

    async def _look(self) -> None:
        try:
            self._learn(await self._store.find_loads())
        except StoreUnavailable as error:
            log.warning("loads of hosts not read, the store is away", error=str(error))
            return
        self._place_again()

    @property
    def draining(self) -> bool:
        return self._membership.state is HostState.DRAINING

    def in_a_hurry(self) -> bool:
        """Another host drains or has just gone: what it gives up is to be found at once, however young it is."""
        return trio.current_time() < self._hurry_until

    async def goes_elsewhere(self, ref: ConversationRef) -> bool:
        me = self._membership.host_id
        chosen = place(me, self._loads())
        told = any(sent == ref for _, _, sent in self._sent)  # by `released`, say: to begin here too would be a race
        if not told and chosen in (None, me):
            return self.draining
        try:
            if await self._store.find_owner(ref) is not None:
                return False  # who holds it goes on with it; if that is another one, the lease says so
        except StoreUnavailable:
            return self.draining
        if told or chosen is None:
            return True
        taken = await self._tell(chosen, ref)
        if not taken and self.draining:
            self.forward.leave_word(chosen, ref)
        return taken or self.draining

    async def released(self, ref: ConversationRef) -> None:
        chosen = place(self._membership.host_id, self._loads())
        if chosen is not None and chosen != self._membership.host_id and not await self._tell(chosen, ref):
            self.forward.leave_word(chosen, ref)

    def _place_again(self) -> None:
        """What waits for a worker's place here, while another host has room.

        Who came back, since nobody took it, stays: it is the last in the line now.
        """
        now, me = trio.current_time(), self._membership.host_id
        self._given_up = {ref: at for ref, at in self._given_up.items() if at > now - GIVEN_UP_SECONDS}
        others = [host for host in self._loads() if host.host_id != me and host.state is HostState.ACTIVE]
        room = sum(max(0, host.room or 0) for host in others)
        waiting = [ref for ref in self._here.waiting() if ref not in self._given_up]
        for ref in waiting[:room]:
            self._given_up[ref] = now
            self._here.place_again(ref)

    async def _tell(self, host_id: str, ref: ConversationRef) -> bool:
        taken = await self.forward.forward(host_id, ref)
        if taken:
            self._given_up.pop(ref, None)
            self._sent.append((trio.current_time(), host_id, ref))
            telemetry.PLACED_ELSEWHERE.inc()
        return taken

    def _loads(self) -> list[HostLoad]:
        """What was read last, corrected by what is known here. Empty before the first look: then nothing is placed."""
        while self._sent and self._sent[0][0] < trio.current_time() - SENT_SECONDS:
            self._sent.popleft()
        sent = [host_id for _, host_id, _ in self._sent]
        me = self._membership.host_id
        state = self._membership.state
        return [
            HostLoad(me, state, self._here.runs(), self._here.room())
            if host.host_id == me
            else _with(host, sent.count(host.host_id))
            for host in self._hosts
        ]

    def _learn(self, hosts: list[HostLoad]) -> None:
        me = self._membership.host_id
        gone = {host.host_id for host in self._hosts} - {host.host_id for host in hosts}
        drains = any(host.state is HostState.DRAINING for host in hosts if host.host_id != me)
        if drains or gone - {me}:
            self._hurry_until = trio.current_time() + HURRY_SECONDS
        self._hosts = hosts

"""One statement for all who ask for it at the same time. Owns who goes with whom; knows neither tables nor queries.

Who asks while no statement is under way sends one at once. Who asks meanwhile waits, and then goes with all others who
wait, in one statement: the busier the host, the less each of them costs. The idea is that of a database's group commit.
Nobody waits in order to be in company.

What members of a batch need not fear of each other:

- none has the key of another, and they go in the order of their keys, so that statements lock rows in one order;
- what is long goes by itself, and nobody waits for it: over a slow line it may be under way for minutes (ADR 55);
- when a statement that several share fails, each goes again, unless the outcome is unknown, and goes by itself until
  that succeeds: a row that somebody keeps locked, or a value that the server refuses, holds others up once;
- when the one that sends is cancelled, the outcome of the others is unknown.

Each wait has an end: as many statements as there are full batches ahead, and each of them has a deadline.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable

import attrs
import trio
from trio.lowlevel import Abort, RaiseCancelT, Task

from lobu_actors.store.driver import Row
from lobu_actors.store.errors import StoreError, StoreOutcomeUnknown

MAX_MEMBERS = 64
MAX_BYTES = 1 << 20  # of all members
MAX_LONERS = 1024  # keys that are remembered for going by themselves

Key = tuple[str, ...]


@attrs.define(eq=False)
class _Member:
    key: Key
    item: bytes
    task: Task | None = None  # while it waits
    rows: list[Row] | None = None
    error: StoreError | None = None
    shared: bool = False  # the statement that failed


class Batch:
    """`send` runs a statement for a JSON array of items, and is told how many; its rows begin with the `key_columns`
    columns of a key. It should give up sooner for several than for one, who has none to hold up.
    """

    def __init__(self, send: Callable[[str, int], Awaitable[list[Row]]], *, key_columns: int) -> None:
        self._send = send
        self._key_columns = key_columns
        self._under_way = False
        self._waiting: deque[_Member] = deque()
        self._served: list[_Member] = []  # who is woken when the next one has sent
        self._loners: OrderedDict[Key, None] = OrderedDict()

    async def rows(self, key: Key, item: bytes) -> list[Row]:
        """What the statement gives for an item, without the key. Raises what it raises."""
        if key in self._loners or len(item) > MAX_BYTES:
            return await self._go_alone(key, item)
        member = _Member(key, item)
        if self._under_way:
            await self._wait(member)
        if member.rows is None and member.error is None:
            self._wake_served()
            await self._lead(member)
        if member.rows is not None:
            return member.rows
        assert member.error is not None
        self._remember(key)
        if member.shared and not isinstance(member.error, StoreOutcomeUnknown):
            return await self._go_alone(key, item)
        raise member.error

    async def _go_alone(self, key: Key, item: bytes) -> list[Row]:
        rows = await self._send(f"[{item.decode()}]", 1)
        self._loners.pop(key, None)
        return [row[self._key_columns :] for row in rows]

    def _remember(self, key: Key) -> None:
        self._loners[key] = None
        if len(self._loners) > MAX_LONERS:
            self._loners.popitem(last=False)

    async def _wait(self, member: _Member) -> None:
        """Until it has been served, or it is its turn to send."""
        member.task = trio.lowlevel.current_task()
        self._waiting.append(member)

        def abort(_: RaiseCancelT) -> Abort:
            member.task = None
            if member in self._waiting:  # else it is on its way, and nobody will hear of it
                self._waiting.remove(member)
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    async def _lead(self, leader: _Member) -> None:
        members = self._gathered(leader)
        self._under_way = True
        try:
            await self._serve(members)
        finally:
            self._hand_on(members)

    async def _serve(self, members: list[_Member]) -> None:
        items = b",".join([member.item for member in members]).decode()
        try:
            rows = await self._send(f"[{items}]", len(members))
        except StoreError as error:
            for member in members:
                member.error, member.shared = type(error)(*error.args), len(members) > 1
                member.error.__cause__ = error
            return
        found: dict[Key, list[Row]] = {member.key: [] for member in members}
        for row in rows:
            found[row[: self._key_columns]].append(row[self._key_columns :])
        for member in members:
            member.rows = found[member.key]

    def _gathered(self, leader: _Member) -> list[_Member]:
        members, left, size = {leader.key: leader}, deque[_Member](), len(leader.item)
        for member in self._waiting:
            size += len(member.item)
            if len(members) < MAX_MEMBERS and size <= MAX_BYTES and member.key not in members:
                members[member.key] = member
            else:
                left.append(member)
        self._waiting = left
        return [members[key] for key in sorted(members)]

    def _hand_on(self, members: list[_Member]) -> None:
        """Wake the next one to send, and through it those who were served.

        Each of these has a message to go on with. The server would stand still for as long as that takes if they came
        first: they wake as the next one runs, which sends before it waits.
        """
        for member in members:
            if member.rows is None and member.error is None:
                member.error = StoreOutcomeUnknown("the statement was given up by the one that sent it")
        self._served = members
        self._under_way = bool(self._waiting)
        if self._waiting:
            _wake(self._waiting.popleft())
        else:
            self._wake_served()

    def _wake_served(self) -> None:
        served, self._served = self._served, []
        for member in served:
            _wake(member)


def _wake(member: _Member) -> None:
    if member.task is not None:
        trio.lowlevel.reschedule(member.task)
        member.task = None

"""The line of turns that wait for their run: who comes first, and who goes together. Pure."""

from __future__ import annotations

from datetime import datetime
from itertools import accumulate, takewhile

import msgspec
from msgspec.structs import replace

from lobu_actors.contract.frames import MAX_LINE_BYTES
from lobu_actors.contract.states import OnBusy, TurnStatus
from lobu_actors.conversation import resetting
from lobu_actors.conversation.corrupt import readable
from lobu_actors.conversation.state import State
from lobu_actors.store.corrupt import CorruptMarker
from lobu_actors.store.records import Turn

MERGED_BYTES = MAX_LINE_BYTES // 4  # of UTF-8, which may be three times as long in a frame


def enqueue(state: State, turns: tuple[Turn, ...]) -> State:
    """Each once. Who ran already goes on: the ids of its text name its place in the log and its attempt, and would mean
    another's text, if that ran there. Then who interrupts; else the order is the database's: acceptance time, then id.
    """
    new = tuple(turn for turn in turns if not state.knows(turn.turn_id))
    if not new:
        return state
    queue = sorted((*state.queue, *new), key=_place)
    return replace(state, queue=tuple(queue))


def enqueue_queued(state: State, owed: tuple[Turn | CorruptMarker, ...]) -> State:
    return enqueue(state, tuple(turn for turn in readable(owed) if turn.status is TurnStatus.QUEUED))


def next_turns(state: State) -> tuple[Turn, ...]:
    """What the next run is of: the first in line and what wants to be merged with it, as far as one frame holds it."""
    first, merged = state.queue[:1], tuple(takewhile(_merges, state.queue[1:]))
    return first + merged[: _fitting((*first, *merged)) - 1] if merged else first


def came_behind(turn: Turn, other: Turn) -> bool:
    """It was accepted later: behind more events, else behind more that was owed, and only else by the database's clock,
    which may have been set back."""
    return _accepted(turn) > _accepted(other)


def _accepted(turn: Turn) -> tuple[int, int, datetime]:
    return turn.first_seq, turn.position, turn.accepted_at


def _fitting(turns: tuple[Turn, ...]) -> int:
    """How many of these are within MERGED_BYTES; one in any case."""
    sizes = accumulate(len(msgspec.json.encode((turn.content, turn.payload))) for turn in turns)
    return max(1, sum(1 for _ in takewhile(lambda size: size <= MERGED_BYTES, sizes)))


def interrupts(turn: Turn, begun: tuple[Turn, ...]) -> bool:
    """Whether it wants these to end: it does, unless one of them came behind it."""
    wants = turn.on_busy is OnBusy.INTERRUPT and turn.verdict is None
    return wants and not any(came_behind(one, turn) for one in begun)


def interrupted(state: State, owed: tuple[Turn, ...], begun: tuple[Turn, ...]) -> bool:
    """Whether somebody who is not known here yet wants these to end."""
    new = (turn for turn in owed if turn.status is TurnStatus.QUEUED and not state.knows(turn.turn_id))
    return bool(begun) and any(interrupts(turn, begun) for turn in new)


def _place(turn: Turn) -> tuple[bool, bool, datetime, str]:
    went_back = turn.error_code is not None  # why its last attempt ended
    return not went_back, turn.on_busy is not OnBusy.INTERRUPT, turn.accepted_at, turn.turn_id


def _merges(turn: Turn) -> bool:
    return turn.on_busy is OnBusy.MERGE and not resetting.is_reset(turn)

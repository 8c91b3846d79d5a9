"""What becomes of a debt that cannot be read: it ends with MARKER_CORRUPT, once, and holds nothing else up. Pure.

A terminal event is written by the one terminal statement, for an accepted turn, into that turn's own log. So a marker
whose turn is missing or another conversation's is not ended as it is: an event without a turn would break that promise,
and one in a foreign log would be told to nobody. The store first gives it its turn back, or gives it back to its
conversation, with a verdict; then it is a refused turn like any other, and survives whatever happens in between.
A marker whose turn has its terminal event owes nothing, and only goes.
"""

from __future__ import annotations

from lobu_actors.contract.errors import TurnError, turn_error_text
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.conversation.marker_messages import MendMarkers
from lobu_actors.conversation.messages import Effect, FinishTurns, Note
from lobu_actors.conversation.state import State
from lobu_actors.store.corrupt import CorruptMarker
from lobu_actors.store.records import Turn

CODE = TurnError.MARKER_CORRUPT


def readable(owed: tuple[Turn | CorruptMarker, ...]) -> tuple[Turn, ...]:
    return tuple(turn for turn in owed if isinstance(turn, Turn))


def end_corrupt(state: State, owed: tuple[Turn | CorruptMarker, ...]) -> list[Effect]:
    """Ends each alone, so that one which cannot be ended takes no other with it.

    What this actor has read before, and holds, is not touched: it ends as it would have.
    """
    found = [one for one in owed if isinstance(one, CorruptMarker) and not state.holds(one.turn_id)]
    effects: list[Effect] = []
    for one in found:
        effects.append(Note("marker corrupt", {"turn_id": one.turn_id, "reason": one.reason}, alarm=True))
        if not one.contradicts:
            effects.append(
                FinishTurns(None, (one,), TurnStatus.FAILED, RunStatus.FAILED, code=CODE, error=turn_error_text(CODE))
            )
    if contradicting := tuple(one.turn_id for one in found if one.contradicts):
        effects.append(MendMarkers(contradicting))
    return effects

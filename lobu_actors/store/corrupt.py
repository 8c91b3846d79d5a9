"""A debt that cannot be read. Reading what is owed is total: each marker gives a turn, or one of these.

What the schema refuses: a turn without content, payload, status or times; with a status or `on_busy` that this version
does not know; with half a verdict; two markers of one turn. What it does not, since no foreign key stands between turn,
marker and log, and a newer version may have widened the rest: everything below. No program makes such rows; hands,
restores that lost some, and rolling deploys do.
"""

from __future__ import annotations

import msgspec

from lobu_actors.contract.ids import ConversationRef


class CorruptMarker(msgspec.Struct, frozen=True):
    """A marker that gives no turn which could be run.

    `contradicts`: other rows say something else than it does, so nothing can be ended under it before `mend_markers`
    was called: its turn's row is missing, is another conversation's, or has its terminal event already. Otherwise the
    turn is there and this conversation's, its row holds what this version cannot read, and it can be ended as it is.
    """

    ref: ConversationRef
    turn_id: str
    message_id: str  # the turn's id where this is unknown
    reason: str  # for the operator's log; never a message's content
    contradicts: bool

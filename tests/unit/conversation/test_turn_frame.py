"""The gate: a run that cannot be guarded is never made ready for a worker."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import OnBusy, TurnStatus
from lobu_actors.conversation.turn_frame import UnguardedRun, turn_frame
from lobu_actors.store.records import Turn

REF = ConversationRef("org", "echo", "echo_u_org")
TURN = Turn(
    REF, "t1", "m1", "hi", OnBusy.ENQUEUE, {"platform": "x", "messageId": "forged"}, TurnStatus.QUEUED, 1, 0, 0, 0,
    datetime(2026, 1, 1, tzinfo=UTC),
)  # fmt: skip


def test_it_holds_the_messages_with_their_further_fields_and_ids_that_cannot_be_forged() -> None:
    frame = turn_frame(REF, "r1", (TURN,), 2, run_token="token", summary="before")
    assert frame.messages == [{"platform": "x", "messageId": "m1", "content": "hi"}]
    assert (frame.run_id, frame.attempt, frame.run_token, frame.extra) == ("r1", 2, "token", {"summary": "before"})
    assert turn_frame(REF, "r1", (TURN,), 2, run_token="token").extra == {}


@pytest.mark.parametrize("name", ["organization_id", "agent_id", "conversation_id"])
def test_a_run_without_a_place_is_refused(name: str) -> None:
    ref = ConversationRef(**{"organization_id": "org", "agent_id": "a", "conversation_id": "c", name: ""})
    with pytest.raises(UnguardedRun):
        turn_frame(ref, "r1", (replace(TURN, ref=ref),), 1, run_token="token")


def test_a_run_without_id_token_or_turns_is_refused() -> None:
    with pytest.raises(UnguardedRun, match="run id"):
        turn_frame(REF, "", (TURN,), 1, run_token="token")
    with pytest.raises(UnguardedRun, match="run token"):
        turn_frame(REF, "r1", (TURN,), 1, run_token="")
    with pytest.raises(UnguardedRun):
        turn_frame(REF, "r1", (), 1, run_token="token")


def test_another_conversations_turn_is_refused() -> None:
    with pytest.raises(UnguardedRun):
        turn_frame(REF, "r1", (replace(TURN, ref=ConversationRef("rival", "echo", "k")),), 1, run_token="token")

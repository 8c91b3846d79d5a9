"""What a worker sends beside the protocol's fields goes on to clients; what is ours stays ours."""

from __future__ import annotations

import pytest

from lobu_actors.contract import events

MADE = (
    events.status("reads", "tool", "m1", 5),
    events.ephemeral("aside", "m1", 5),
    events.question("q1", "Well?", ["yes"], "m1"),
    events.complete("m1", ["m1"], "done", {"tokens": 1}, 5),
    events.agent_error("m1", ["m1"], "NO", "no", {"why": 1}, 5),
)


@pytest.mark.parametrize("data", MADE, ids=lambda data: data.get("type", "question"))
def test_no_field_of_ours_can_be_replaced(data: events.Data) -> None:
    forged = dict.fromkeys((*events.OWN_FIELDS, *data), "forged")
    assert events.with_extra(data, {**forged, "detail": 7}) == data | {"detail": 7}
    assert events.with_extra({}, {**forged, "detail": 7}) == {"detail": 7}

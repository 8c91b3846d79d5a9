"""What is remembered of the last minutes: durations in buckets, by slot; failures by organization; all bounded."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import OnBusy, TurnStatus
from lobu_actors.conversation.recent import FAILURES, SLOT_SECONDS, SLOTS, Recent, Recently, bucket_of
from lobu_actors.store.records import Turn

REF = ConversationRef("acme", "echo", "c1")
OTHER = ConversationRef("rival", "echo", "c2")
NOW_MS = 1_700_000_000_000


def turn(name: str, accepted_ms: int, ref: ConversationRef = REF) -> Turn:
    at = datetime.fromtimestamp(accepted_ms / 1e3, UTC)
    return Turn(ref, f"t-{name}", name, "x", OnBusy.ENQUEUE, {}, TurnStatus.RUNNING, 1, 0, 0, 0, at)


@given(st.floats(1e-6, 1e7))
def test_a_bucket_holds_what_it_says(seconds: float) -> None:
    bucket = bucket_of(seconds)
    assert 2 ** (bucket / 4) <= seconds * 1e6 * (1 + 1e-9)
    assert seconds * 1e6 < 2 ** ((bucket + 1) / 4) * (1 + 1e-9)


@given(st.floats(max_value=1e-6) | st.floats(1e7, 1e300))
def test_what_is_out_of_all_bounds_is_in_a_bucket_too(seconds: float) -> None:
    assert 0 <= bucket_of(seconds) < 45 * 4


def test_old_slots_go() -> None:
    recently = Recently()
    for number in range(3 * SLOTS):
        recently.note(0.1, NOW_MS + number * SLOT_SECONDS * 1000)
    last = NOW_MS + (3 * SLOTS - 1) * SLOT_SECONDS * 1000
    assert len(recently.latencies(last).slots) == SLOTS
    assert len(recently.latencies(last + SLOTS * SLOT_SECONDS * 500).slots) == SLOTS // 2
    assert recently.latencies(last + 10 * SLOTS * SLOT_SECONDS * 1000).slots == ()


def test_a_clock_that_went_back_makes_no_new_slot() -> None:
    recently = Recently()
    recently.note(0.1, NOW_MS)
    recently.note(0.1, NOW_MS - 60_000)
    [(began, counts)] = recently.latencies(NOW_MS).slots
    assert began <= NOW_MS / 1000 < began + SLOT_SECONDS
    assert counts == ((bucket_of(0.1), 2),)


def test_failures_are_each_organizations_own_and_newest_first() -> None:
    recent = Recent()
    recent.ended(REF, [turn("m1", NOW_MS), turn("m2", NOW_MS)], "A", NOW_MS)
    recent.ended(OTHER, [turn("m3", NOW_MS, OTHER)], "B", NOW_MS)
    recent.ended(REF, [turn("m4", NOW_MS)], None, NOW_MS)
    recent.ended(REF, [turn("m5", NOW_MS)], "C", NOW_MS)
    assert [failed.message_id for failed in recent.failures("acme", 10)] == ["m5", "m2", "m1"]
    assert [failed.code for failed in recent.failures("acme", 1)] == ["C"]
    for number in range(2 * FAILURES):
        recent.ended(OTHER, [turn(f"n{number}", NOW_MS, OTHER)], "B", NOW_MS)
    assert len(recent.failures("rival", 10 * FAILURES)) == FAILURES


def test_a_crash_counts_from_the_workers_end_and_only_if_the_turn_failed_of_it() -> None:
    recent = Recent()
    recent.gone(REF, NOW_MS)
    recent.ended(REF, [turn("m1", NOW_MS - 1000)], "WORKER_CRASHED", NOW_MS + 8)
    [(_, counts)] = recent.crash.latencies(NOW_MS).slots
    assert counts == ((bucket_of(0.008), 1),)
    recent.gone(REF, NOW_MS)
    recent.ended(REF, [turn("m2", NOW_MS)], None, NOW_MS + 8)
    recent.gone(REF, NOW_MS)
    recent.forget(REF)
    recent.ended(REF, [turn("m3", NOW_MS)], "NO_PROGRESS", NOW_MS + 8)
    assert recent.crash.latencies(NOW_MS).slots[0][1] == counts

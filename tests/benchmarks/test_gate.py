"""A turn may not cost twice as much unnoticed."""

from __future__ import annotations

import pytest

from benchmarks import calls
from benchmarks.gate import LIMITS, Gate, gates
from benchmarks.server import own_server


@pytest.mark.timeout(300)
def test_a_turn_costs_no_more_than_it_may() -> None:
    with own_server() as server:
        found = gates(server)
    assert [gate.name for gate in found] == list(LIMITS)
    assert [str(gate) for gate in found if gate.broken] == []
    too_loose = [str(gate) for gate in found if gate.value * 3 < gate.limit]
    assert too_loose == [], "a limit so far from what is found catches nothing; take it down"


def test_a_turn_makes_no_more_calls_than_it_may() -> None:
    found = calls.gate()
    assert not found.broken, str(found)
    assert found.value * 1.1 > found.limit, f"take the limit down: {found}"


def test_one_disturbed_round_breaks_no_gate_and_a_doubled_cost_does() -> None:
    assert not Gate("cost", 40.0, [26.0, 27.0, 90.0, 26.5, 28.0]).broken
    assert Gate("cost", 40.0, [52.0, 54.0, 30.0, 53.0, 56.0]).broken

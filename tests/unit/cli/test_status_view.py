"""What a status looks like: whole for a pipe, and on a screen never more than it has."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobu_actors.contract.states import HostState
from lobu_actors.store.owed_protocol import OwedTurn
from lobu_actors.store.records import Host, Totals
from supervisor.cli.status_view import Section, Status, fitted, flat, sections

HOST = Host("h1234567890123456", "alpha", None, "0.1.0", HostState.ACTIVE, 5.0, leases=2, epochs=3, running=1)
HOUSE: dict[str, Any] = {
    "hosts": [
        {
            "name": "alpha",
            "workersInAll": 7,
            "idleWorkers": 2,
            "activeActors": 9,
            "running": 1,
            "frozen": True,
            "turns": [
                {
                    "phase": "live",
                    "ageSeconds": 41.0,
                    "conversationId": "echo_ann_local",
                    "doing": "web_search",
                    "textLength": 12,
                    "clocks": [
                        {"code": "TURN_TIMEOUT", "leftSeconds": 1759.0},
                        {"code": "WORKER_UNRESPONSIVE", "leftSeconds": 12.0},
                        {"code": "TOOL_TIMEOUT", "leftSeconds": 562.0},
                    ],
                }
            ],
            "tree": {
                "name": "lobu",
                "state": "running",
                "restarts": 0,
                "children": [{"name": "edge", "state": "running", "restarts": 3, "children": []}],
            },
            "workers": [
                {
                    "worker": "echo",
                    "state": "ready",
                    "pid": 77,
                    "memoryBytes": 20 << 20,
                    "ageSeconds": 3.21,
                    "conversationId": "echo_ann_local",
                }
            ],
            "actors": [{"conversationId": "echo_ann_local", "waiting": 4, "running": True}],
        }
    ]
}
OWED = [
    OwedTurn("echo_ann_local", "t1", "m1", 2, HOST.host_id, 12.34),
    OwedTurn("echo_ann_local", "t2", None, 1, None, 200.0),
]


def status(**more: Any) -> Status:
    fields: dict[str, Any] = {"owed": OWED, "house": HOUSE} | more
    return Status([HOST], 0, Totals(1, 1, 1, 200.0), [], gateway_url="http://x", gateway="ready", **fields)


def test_everything_is_there() -> None:
    text = "\n".join(flat(sections(status())))
    for line in (
        "turns          1 running, 1 queued, oldest owed for 200.0 s",
        " 12.3 s  running  attempt 2  echo_ann_local  m1  on alpha",
        "0:03:20  queued   attempt 1  echo_ann_local  t2",
        "alpha: running turns: 1, standing still: its lease is not renewed",
        "  41.0 s  live  echo_ann_local  web_search  TOOL_TIMEOUT in 0:09:22",
        "alpha: tree",
        "  lobu  running",
        "    edge  running, restarted 3 times",
        "alpha: workers: 7, idle: 2",
        "echo  ready  77  20 MiB  3.2 s  echo_ann_local",
        "alpha: actors: 9",
        "echo_ann_local  4  waiting  running",
    ):
        assert line in text, text


@pytest.mark.parametrize("house", [None, {}, {"hosts": []}, {"hosts": [{"name": "x", "tree": {}}]}])
def test_a_server_that_tells_nothing_from_inside(house: dict[str, Any] | None) -> None:
    assert "tree" not in "\n".join(flat(sections(status(house=house))))


def test_control_characters_do_not_reach_the_terminal() -> None:
    evil = OwedTurn("c", "t", "\x1b[2Jm\r", 1, None, 1.0)
    shown = sections(status(owed=[evil]))
    assert not any("\x1b" in line or "\r" in line for line in [*flat(shown), *fitted(shown, 80, 24)])


def test_the_longest_are_cut_first_and_say_so() -> None:
    shown = [Section("", ["a", "b"], must=True), Section("long", [str(n) for n in range(50)]), Section("short", ["x"])]
    lines = fitted(shown, 80, 10)
    assert lines == ["a", "b", "long", "0", "1", "2", "3", "  … 46 more", "short", "x"]


_LINES = st.lists(st.sampled_from(["", "short", "x" * 60]), max_size=12)


@given(
    st.lists(st.builds(Section, st.sampled_from(["", "title"]), _LINES, st.booleans()), max_size=6),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_nothing_is_wider_or_higher_than_the_screen(shown: list[Section], width: int, height: int) -> None:
    lines = fitted(shown, width, height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)

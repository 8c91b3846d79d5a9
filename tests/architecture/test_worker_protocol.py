"""docs/worker-protocol.md has every frame with its fields, and says which of them may be absent."""

from __future__ import annotations

import re
from pathlib import Path

from lobu_actors.contract.frames import SUPERVISOR_FRAMES, WORKER_FRAMES, Frame, _rules
from supervisor.workers.environment import worker_environment

PAGE = (Path(__file__).parents[2] / "docs" / "worker-protocol.md").read_text()


def described(heading: str) -> dict[str, list[str]]:
    """Of each frame in the table of that heading its fields."""
    table = PAGE.split(f"| {heading} |")[1].split("\n\n")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    return {cells[1].strip(" `"): re.findall(r"`([^`]+)`", cells[2]) for cells in rows}


def fields(kinds: dict[str, type[Frame]], *, always: bool) -> dict[str, list[str]]:
    """`always`: whoever sends them fills in all, whether or not they have to be there."""
    return {
        name: [rule.wire + ("" if rule.required or always else "?") for rule in _rules(kind)]
        for name, kind in kinds.items()
    }


def test_every_frame_is_there_with_its_fields() -> None:
    assert described("supervisor to worker") == fields(SUPERVISOR_FRAMES, always=True)
    assert described("worker to supervisor") == fields(WORKER_FRAMES, always=False)


def test_the_environment_is_there() -> None:
    said = PAGE.split("**Environment**")[1].split("\n- ")[0]
    made = worker_environment(workspace="/w", dispatcher_url="u", token="t", worker_env={}, session_store="file")
    assert {*made, "LOBU_WORKER_FD", "LOBU_WORKER_ID"} <= set(re.findall(r"\b[A-Z][A-Z_]+\b", said))

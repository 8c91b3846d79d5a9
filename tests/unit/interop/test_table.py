"""The page of the matrices: every row is in it, what failed says why, and a file of something else is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.interop import table


def row(kind: str, name: str, scenario: str, result: str = "pass", note: str = "complete") -> dict[str, Any]:
    return {
        "kind": kind,
        "name": name,
        "version": "1.0",
        "scenario": scenario,
        "result": result,
        "seconds": 1.5,
        "note": note,
    }


def test_rows_of_all_files_become_one_page(tmp_path: Path) -> None:
    (tmp_path / "clients.json").write_text(
        json.dumps(
            [
                row("client", "c", "reply"),
                row("client", "c", "tool", "n/a"),
                row("client", "d", "reply", "fail", "hung"),
                row("client", "d", "resume", note="error, then resumed"),
            ]
        )
    )
    (tmp_path / "agents.json").write_text(
        json.dumps([row("agent", "a", "cut", note="said a lot"), row("agent", "a", "ask", "skipped", "asks nobody")])
    )
    page = table.page(table.read(tmp_path))
    assert page.index("## Clients") < page.index("## Agents")
    assert "| c | 1.0 | yes (1.5) | - |  |" in page
    assert "| d | 1.0 | **no** |  | yes (1.5, error, then resumed) |" in page
    assert "- d, reply: hung" in page
    assert "| a | 1.0 | yes (1.5) | - |" in page, "what an agent said on the way is not for the table"
    assert "- a, ask: asks nobody" in page


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "agents.json").write_text(json.dumps([{"name": "a"}]))
    with pytest.raises(SystemExit, match=r"agents\.json"):
        table.read(tmp_path)

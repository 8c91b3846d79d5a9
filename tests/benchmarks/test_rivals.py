"""The runner of rivals in its short form, on ours and on one rival; the table that it makes. Nothing is downloaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.rivals import install, table
from benchmarks.rivals.measures import Found


def quick(name: str, output: Path) -> Any:
    command = [sys.executable, "-m", "benchmarks.rivals", "--quick", "--only", name, "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"\n| {one} |" in done.stdout for one in {"lobu", name}), done.stdout
    return json.loads(output.read_text())["contenders"]


@pytest.mark.timeout(400)
def test_the_plain_service_on_our_packages_beside_ours(tmp_path: Path) -> None:
    found = quick("trio", tmp_path / "run.json")
    ours = found["lobu"]
    assert ours["outcomes"]["server"] == {"same run went on": 1}
    assert found["trio"]["outcomes"] == {"server": {"failed": 1}, "server and workers": {"failed": 1}}
    assert found["trio"]["numbers"].keys() == ours["numbers"].keys()
    wanted = {number for _, number, _ in table.COLUMNS} | {"server killed to end, s"}
    assert wanted <= ours["numbers"].keys()
    assert all(number["median"] > 0 for name, number in ours["numbers"].items() if "idle" not in name), ours


@pytest.mark.timeout(400)
def test_the_plain_service_beside_ours(tmp_path: Path) -> None:
    if not install.installed("asyncio"):
        pytest.skip("its packages are not here; `make bench-rivals ARGS='--only asyncio --quick'` installs them")
    found = quick("asyncio", tmp_path / "run.json")
    assert found["asyncio"]["outcomes"] == {"server": {"failed": 1}, "server and workers": {"failed": 1}}
    assert found["asyncio"]["numbers"].keys() == found["lobu"]["numbers"].keys()


def test_who_is_not_known_is_named() -> None:
    command = [sys.executable, "-m", "benchmarks.rivals", "--only", "asyncio,nobody"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no nobody; there are lobu, " in done.stderr


def found(p50: float, outcome: str, seconds: float | None) -> Found:
    ended = {} if seconds is None else {"server killed to end, s": seconds}
    return Found({"one turn p50, ms": p50, **ended}, {"server": outcome})


def test_a_table_has_medians_their_spread_and_what_became_of_the_turn(tmp_path: Path) -> None:
    rounds = {
        "one": [found(3.0, "run twice", 2.0), found(1.0, "failed", 1.0), found(2.0, "failed", 4.0)],
        "other": [found(5.0, "no end", None)],
    }
    lines = table.as_markdown(rounds).splitlines()
    assert lines[2].startswith("| one | 2.00 (1.00 to 3.00) | - |")
    assert lines[2].endswith("| run twice 1 times, failed 2 times after 2.0 (1.0 to 4.0) s | - |")
    assert lines[3].startswith("| other | 5.00 | - |")
    assert lines[3].endswith("| no end | - |")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write_into(page, "| new |")
    assert page.read_text() == f"before\n{table.BEGIN}\n| new |\n{table.END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="no place for the figures"):
        table.write_into(page, "| new |")

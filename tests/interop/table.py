"""`python -m tests.interop.table`: docs/interop.md from whatever rows there are in results/interop/*.json.

A row is `{kind, name, version, scenario, result, seconds, note}`; the commands that run the matrices write them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "interop"
PAGE = ROOT / "docs" / "interop.md"
Row = dict[str, Any]

FIELDS = ("kind", "name", "version", "scenario", "result", "seconds", "note")
TITLES = {"client": "Clients", "agent": "Agents"}
SIGNS = {"pass": "yes", "fail": "**no**", "n/a": "-", "skipped": "-"}
# How a provider's failure may end with some agents, and not with others.
UNLIKE_OTHERS = ("FIRST_OUTPUT_TIMEOUT", "NO_PROGRESS", "PROVIDER_REFUSED", "THE_MODEL_GOES_ON")
HEAD = """# Interop

Real third-party programs against a real `lobu run`, offline, with a stand-in for the model provider that misbehaves on
command. Made by `make interop` (`make interop-clients`, `make interop-agents`, `python -m tests.interop.table`);
versions are pinned under `tests/interop/`. In brackets: seconds, and how it ended where that is not plain.

- **worker-killed**, **provider-…** (its status, cut in the middle of a text, silent behind half of one): yes means that
  the client showed an error with its code: it did not hang, and it did not take half a text for success.
- **server-restarted** (drained and started again), **server-killed** (`kill -9`): yes means an error, or, where the
  client resumes, the whole text. With agents: the worker is adopted, and the reply goes on in its first attempt.
- **cancel**: yes means that the turn was cancelled on the server, too.
- **tool**, with clients: a tool of the client's, called by the model behind the agent `openai`; with agents: a tool of
  the agent's.

With agents, a code in brackets tells of another end than others have: at its provider's failure the agent says nothing
until a clock of ours ends the turn (`FIRST_OUTPUT_TIMEOUT`, `NO_PROGRESS`); or it says that it failed and not why
(`PROVIDER_REFUSED`); or it has the model go on where the answer was cut, and the reply becomes whole
(`THE_MODEL_GOES_ON`).

Seconds include the client's own start, on a machine that did other things beside it. A dash: it does not apply. An
empty cell was not run.
"""


def read(folder: Path) -> list[Row]:
    """Raises SystemExit for a file that does not hold rows."""
    rows: list[Row] = []
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text())
        if not isinstance(found, list) or not all(isinstance(row, dict) and set(FIELDS) <= set(row) for row in found):
            raise SystemExit(f"{path} holds no rows of {', '.join(FIELDS)}; run the command that makes it again")
        rows += found
    return rows


def page(rows: list[Row]) -> str:
    """The whole page."""
    kinds = sorted({row["kind"] for row in rows}, key=lambda kind: (kind != "client", kind))
    tables = [_table(TITLES.get(kind, kind), [row for row in rows if row["kind"] == kind]) for kind in kinds]
    return "\n".join([HEAD, *tables])


def _table(title: str, rows: list[Row]) -> str:
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    names = list(dict.fromkeys((row["name"], row["version"]) for row in rows))
    cells = {(row["name"], row["version"], row["scenario"]): _cell(row) for row in rows}
    head = f"| {title.lower()} | version | {' | '.join(scenarios)} |"
    lines = [f"## {title}\n", head, "| --- " * (len(scenarios) + 2) + "|"]
    for name, version in names:
        shown = [cells.get((name, version, scenario), "") for scenario in scenarios]
        lines.append(f"| {name} | {version} | {' | '.join(shown)} |")
    told = [row for row in rows if row["result"] in ("fail", "skipped")]
    notes = [f"- {row['name']}, {row['scenario']}: {row['note']}" for row in told]
    return "\n".join([*lines, "", *notes]).rstrip() + "\n"


def _cell(row: Row) -> str:
    sign = SIGNS.get(row["result"], row["result"])
    if row["result"] != "pass":
        return sign
    plain = row["note"] in ("", "complete", "error", "cancelled")
    if row["kind"] == "agent":  # of which notes tell more than a cell can hold
        plain = row["note"] not in UNLIKE_OTHERS or "silence" in row["scenario"]
    return f"{sign} ({row['seconds']:g})" if plain else f"{sign} ({row['seconds']:g}, {row['note']})"


def main() -> int:
    rows = read(RESULTS)
    if not rows:
        print(f"there are no rows in {RESULTS}; run make interop-clients first", file=sys.stderr)
        return 1
    PAGE.write_text(page(rows))
    print(f"{PAGE.relative_to(ROOT)}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""`lobu audit`: the invariants I1 to I7 against the database, and I8 against this host's processes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click
import msgspec
import trio

from lobu_actors.store.errors import SchemaMismatch
from lobu_actors.store.migrate import pending
from lobu_actors.store.pool import Pool
from lobu_actors.store.postgres.audit import Audit, Verdict
from supervisor.cli.database import load_for_database, open_database
from supervisor.cli.options import database_options, example, json_option, print_json, safe_for_terminal
from supervisor.config.settings import Settings
from supervisor.upkeep.process_audit import ProcessVerdict, audit_processes

SHOWN_ROWS = 20  # of one invariant, as text
PROCESSES = "no process, descriptor or temporary file is left over"


class Line(msgspec.Struct, frozen=True):
    """One invariant as it is printed."""

    invariant: str
    promise: str
    checked: Counter[str]
    broken: list[dict[str, Any]]
    cut: bool = False


@click.command("audit", epilog=example("lobu audit", "lobu audit --json"))
@json_option
@database_options
def command(as_json: bool, config: Path | None, data_dir: Path | None, database_url: str | None) -> int:
    """Check that every promise is kept, in the database and among this host's processes.

    Reads only, a batch at a time, and may run beside a working server. Exit code 1 when something is broken.
    """
    lines = trio.run(_audit, load_for_database(config, data_dir, database_url))
    if as_json:
        print_json({"ok": not any(line.broken for line in lines), "invariants": [_as_json(line) for line in lines]})
    else:
        for line in lines:
            click.echo(safe_for_terminal("\n".join(_as_text(line))))
    return 1 if any(line.broken for line in lines) else 0


async def _audit(settings: Settings) -> list[Line]:
    # Processes first: the database's own server may have to be started for the rest.
    processes = await audit_processes(settings.state_dir)
    async with open_database(settings) as url:
        missing = await pending(url)
        if missing:
            raise SchemaMismatch(f"the database lacks {', '.join(missing)}; run `lobu migrate`")
        pool = Pool(url, size=1, application_name="lobu audit")
        try:
            verdicts = await Audit(pool).run()
        finally:
            pool.close()
    return [*map(_of_rows, verdicts), _of_processes(processes)]


def _of_rows(verdict: Verdict) -> Line:
    broken = [{"check": finding.check, **finding.row} for finding in verdict.findings]
    return Line(verdict.invariant, verdict.promise, verdict.checked, broken, verdict.cut)


def _of_processes(verdict: ProcessVerdict) -> Line:
    broken = [
        {"check": leftover.kind, "pid": leftover.pid, "detail": leftover.detail} for leftover in verdict.leftovers
    ]
    return Line("I8", PROCESSES, verdict.checked, broken)


def _as_json(line: Line) -> dict[str, Any]:
    return {
        "invariant": line.invariant,
        "promise": line.promise,
        "ok": not line.broken,
        "checked": dict(line.checked),
        "broken": line.broken,
        "more": line.cut,
    }


def _as_text(line: Line) -> list[str]:
    checked = ", ".join(f"{number} {_plural(table, number)}" for table, number in line.checked.items() if number)
    head = f"{line.invariant}  {'BROKEN' if line.broken else 'ok    '}  {line.promise}"
    lines = [f"{head}  ({checked or 'nothing to check'})"]
    for row in line.broken[:SHOWN_ROWS]:
        details = "  ".join(f"{name}={value}" for name, value in row.items() if name != "check" and value is not None)
        lines.append(f"      {row['check']}: {details}")
    if line.cut or len(line.broken) > SHOWN_ROWS:
        lines.append(f"      at least {len(line.broken)} in all; --json lists them")
    return lines


def _plural(table: str, number: int) -> str:
    name = table.replace("_", " ")
    if number == 1:
        return name
    return "processes" if name == "process" else "indexes" if name == "index" else f"{name}s"

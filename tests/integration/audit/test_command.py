"""`lobu audit`: calm and 0 when all is well, the rows and 1 when something is broken."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import attrs
import trio

from lobu_actors.store.postgres import PostgresStore
from tests.conftest import admin


@attrs.frozen
class Done:
    returncode: int
    stdout: str
    stderr: str


async def audit(folder: Path, url: str, *words: str) -> Done:
    done = await trio.run_process(
        [
            sys.executable,
            "-m",
            "supervisor.cli.main",
            "audit",
            "--database-url",
            url,
            "--data-dir",
            str(folder),
            *words,
        ],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        cwd=folder,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


async def test_all_is_well(world: PostgresStore, database_url: str, tmp_path: Path) -> None:
    done = await audit(tmp_path, database_url)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line[:10] for line in lines] == [f"I{number}  ok    " for number in range(1, 9)]
    assert "10 turns" in lines[0]


async def test_what_is_broken_is_shown(world: PostgresStore, database_url: str, tmp_path: Path) -> None:
    admin(database_url, "DELETE FROM turn_marker WHERE turn_id = 't32'")
    done = await audit(tmp_path, database_url)
    assert done.returncode == 1
    first, row, second, *_ = done.stdout.splitlines()
    assert first.startswith("I1  BROKEN")
    assert row.strip().startswith("turn_owed_without_marker: organizationId=acme  conversationId=c3")
    assert "turnId=t32" in row
    assert second.startswith("I2  ok")


async def test_as_json(world: PostgresStore, database_url: str, tmp_path: Path) -> None:
    admin(database_url, "UPDATE turn SET status = 'failed' WHERE turn_id = 't1'")
    done = await audit(tmp_path, database_url, "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["ok"] is False
    broken = {line["invariant"]: line["broken"] for line in report["invariants"]}
    assert [name for name, rows in broken.items() if rows] == ["I1"]
    [row] = broken["I1"]
    assert (row["check"], row["turnId"], row["type"]) == ("turn_contradicts_terminal", "t1", "complete")


async def test_a_schema_that_is_not_up_to_date_is_said(world: PostgresStore, database_url: str, tmp_path: Path) -> None:
    admin(database_url, "DELETE FROM schema_migration WHERE version = 4")
    done = await audit(tmp_path, database_url)
    assert done.returncode == 1
    assert "run `lobu migrate`" in done.stderr

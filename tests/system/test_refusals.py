"""A start that cannot be: one sentence that says what to do, exit code 1, no traceback, nothing left behind."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.conftest import admin
from tests.system.conftest import Start
from tests.system.lobu_process import EXIT_SECONDS, LOBU, LobuRun

AGENT = '[[agents]]\nid = "echo"\nworker = "echo"\ndefault = true\n'
ECHO = '[workers.echo]\ncommand = ["python", "-m", "lobu_actors.agents.echo"]\n'


async def _refused(run: LobuRun, *said: str) -> str:
    run.launch()
    assert await run.wait_exit(EXIT_SECONDS) == 1, run.log()
    errors = run.errors()
    assert "Traceback" not in errors, errors
    assert "internal error" not in errors, errors
    sentences = [line for line in errors.splitlines() if line.startswith("lobu: ")]
    assert len(sentences) == 1, errors
    for words in said:
        assert words in sentences[0], sentences[0]
    assert "Listening" not in run.output()
    assert run.processes() == []
    return sentences[0]


async def test_the_port_is_taken(start_run: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        run = await start_run(start=False, arguments=("--port", str(port)))
        await _refused(run, f"Port {port}", "choose another port")
    # Once it is free, the same folder starts.
    await run.start()


async def test_the_port_is_taken_and_the_database_is_ours(start_run: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        run = await start_run(start=False, arguments=("--port", str(other.getsockname()[1])), database_url=None)
        await _refused(run, "choose another port")


async def test_the_data_folder_cannot_be_made(start_run: Start) -> None:
    run = await start_run(start=False, database_url=None)
    (run.folder / "file").write_text("in the way")
    run.arguments = ("--port", "0", "--data-dir", str(run.folder / "file" / "data"))
    await _refused(run, "file", "--data-dir")


async def test_the_state_folder_is_a_file(start_run: Start) -> None:
    run = await start_run(start=False, database_url=None)
    (run.folder / ".lobu").write_text("in the way")
    await _refused(run, ".lobu", "--data-dir")


async def test_the_database_folder_is_a_file(start_run: Start) -> None:
    run = await start_run(start=False, database_url=None)
    (run.folder / ".lobu").mkdir()
    (run.folder / ".lobu" / "pgdata").write_text("in the way")
    await _refused(run, "pgdata")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("spawner/workers", ["spawner ended", "no worker can be started"]),
        ("gateway_url/folder", ["gateway_url", "cannot be written"]),
    ],
)
async def test_something_is_in_the_way_of_a_file_of_ours(start_run: Start, name: str, said: list[str]) -> None:
    run = await start_run(start=False)
    place = run.folder / ".lobu" / name
    place.parent.mkdir(parents=True)
    place.write_text("in the way")
    await _refused(run, *said)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://nobody:sesame@127.0.0.1:1/none", "DATABASE_URL"),
        ("postgresql://nobody@no-such-host.invalid/none", "DATABASE_URL"),
        ("mysql://localhost/db", "mysql"),
        ("postgresql://[half/none", "URL"),
    ],
)
async def test_the_database_cannot_be_reached(start_run: Start, url: str, said: str) -> None:
    sentence = await _refused(await start_run(start=False, database_url=url), said)
    assert "sesame" not in sentence


async def test_the_database_was_never_migrated(start_run: Start, database_url: str) -> None:
    bare = database_url.replace(database_url.split("/")[3].split("?")[0], "template1", 1)
    await _refused(await start_run(start=False, database_url=bare), "lobu migrate")


async def test_a_migration_was_edited_after_it_was_applied(start_run: Start, database_url: str) -> None:
    admin(database_url, "UPDATE schema_migration SET sha256 = repeat('0', 64) WHERE version = 3")
    run = await start_run(start=False)
    await _refused(run, "0003_sessions.sql", "put the file back")
    for words in (["migrate", "--check"], ["migrate"]):
        command = [sys.executable, *LOBU, *words, "--database-url", database_url]
        done = await trio.run_process(
            command, cwd=run.folder, capture_stdout=True, capture_stderr=True, check=False, env=dict(os.environ)
        )
        assert done.returncode == 1
        assert done.stdout == b""
        assert done.stderr.decode() == (
            "lobu: the migration file 0003_sessions.sql is not the one that was applied to this database; put the file "
            "back as it was and make the change in a new migration\n"
        )


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("[edge]\nmax_conections = 9\n", ["lobu.toml:2", "`edge.max_conections`", "did you mean `max_connections`"]),
        ("[edge]\nbacklog = 0\n", ["lobu.toml:2", "`edge.backlog`", "from 1 to 65535, not 0"]),
        (ECHO + AGENT + "[server]\nprot = 80\n", ["lobu.toml:8", "prot"]),
        ('[workers.echo]\ncommand = ["no-such-program-anywhere"]\n' + AGENT, ["lobu.toml", "no-such-program-anywhere"]),
        ('[workers.echo]\ncommand = ["./missing"]\n' + AGENT, ["lobu.toml", "missing"]),
        (ECHO + AGENT.replace('"echo"\ndefault', '"ecko"\ndefault'), ["lobu.toml", "ecko"]),
        ("[server\n", ["lobu.toml", "TOML"]),
    ],
)
async def test_the_configuration_is_wrong(start_run: Start, config: str, said: list[str]) -> None:
    await _refused(await start_run(start=False, config=config), *said)


async def test_a_second_run_in_the_same_folder(start_run: Start, tmp_path: Path) -> None:
    first = await start_run()
    second: Any = LobuRun(first.folder, database_url=first.database_url)
    before = first.url
    second.launch()
    assert await second.wait_exit() == 1
    assert "Traceback" not in second.errors()
    assert f"pid {first.pid}" in second.errors()
    assert "--data-dir" in second.errors()
    # The first one is not disturbed.
    assert (first.folder / ".lobu" / "gateway_url").read_text().strip() == before
    assert await first.stop() == 0

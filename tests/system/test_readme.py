"""The first session that README.md shows goes as it stands there."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import trio

from tests.system.conftest import Start

README = (Path(__file__).parents[2] / "README.md").read_text()
SESSION = re.findall(r"```console\n(.*?)```", README, re.DOTALL)[1]
CHAT = re.compile(r"^\$ \.venv/bin/lobu (chat .*)\n((?:[^$].*\n)*)", re.MULTILINE)


async def test_what_two_commands_print(start_run: Start) -> None:
    run = await start_run(config="")
    shown = CHAT.findall(SESSION)
    assert len(shown) == 2
    for words, printed in shown:
        said = await trio.run_process(
            [sys.executable, "-m", "supervisor.cli.main", *shlex.split(words)],
            cwd=run.folder,
            env=run.environment,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        assert (said.stdout + said.stderr).decode() == printed

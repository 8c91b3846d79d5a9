"""`lobu run` as the first process of a container: whoever nobody waits for is reaped, and signals come through once."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
from contextlib import suppress

import psutil
import pytest

from tests.system.conftest import Start, client_of
from tests.system.lobu_process import ECHO, LobuRun, until

ALONE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def _may_be_alone() -> bool:
    return shutil.which(ALONE[0]) is not None and subprocess.run([*ALONE, "true"], check=False).returncode == 0


pytestmark = pytest.mark.skipif(not _may_be_alone(), reason="only root can make a namespace of processes")


async def test_whoever_nobody_waits_for_is_reaped_and_a_stop_is_a_stop(start_run: Start) -> None:
    run = await start_run(config=ECHO, prefix=ALONE)
    conversation = await client_of(run).open()
    assert (await conversation.ask("hello")).event == "complete"
    spawner = run.spawner_pid()
    assert spawner is not None
    os.kill(spawner, signal.SIGKILL)
    await until(lambda: run.spawner_pid() not in (None, spawner), "another spawner runs")
    assert (await conversation.ask("hello")).event == "complete"
    await until(lambda: _ended(run) == [], "nobody is left who has ended")
    _first(run).send_signal(signal.SIGTERM)
    assert await run.wait_exit() == 0
    assert "stopping now" not in run.errors()


async def test_a_key_of_the_terminal_is_one_signal(start_run: Start) -> None:
    run = await start_run(start=False, config=ECHO, prefix=ALONE)
    mine, its = pty.openpty()
    try:
        run.launch(terminal=its)
        await run.wait_ready()
        os.write(mine, b"\x03")
        assert await run.wait_exit() == 0
    finally:
        os.close(mine)
        os.close(its)
    assert "stopping" in run.errors()
    assert "stopping now" not in run.errors()


async def test_its_end_by_a_signal_is_told_as_a_shell_does(start_run: Start) -> None:
    run = await start_run(config=ECHO, prefix=ALONE)
    [main] = _first(run).children()
    main.kill()
    assert await run.wait_exit() == 128 + signal.SIGKILL


def _first(run: LobuRun) -> psutil.Process:
    [first] = psutil.Process(run.pid).children()
    return first


def _ended(run: LobuRun) -> list[psutil.Process]:
    ended = []
    for process in _first(run).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_ZOMBIE:
                ended.append(process)
    return ended

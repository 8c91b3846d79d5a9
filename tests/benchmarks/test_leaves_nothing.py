"""A benchmark that is told to end takes all that it started with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
import trio

from tests.system.lobu_process import until

BENCH = ("supervisor.cli.main", "bench", "hang", "--repeat", "1000")
RIVALS = ("benchmarks.rivals", "--only", "lobu")

# The interrupt comes when the new process is there and before its starter knows.
IN_A_START = """
import subprocess
from benchmarks.children import none_left
fork = subprocess._fork_exec
def interrupted(*words):
    print(fork(*words), flush=True)
    raise KeyboardInterrupt
subprocess._fork_exec = interrupted
with none_left():
    subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
"""


def test_an_interrupt_while_a_process_is_started_leaves_none() -> None:
    done = subprocess.run([sys.executable, "-c", IN_A_START], capture_output=True, text=True, check=False, timeout=60)
    assert "KeyboardInterrupt" in done.stderr
    assert not psutil.pid_exists(int(done.stdout))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("words", "status"), [(BENCH, 130), (RIVALS, 1)], ids=["bench", "rivals"])
def test_a_benchmark_that_is_ended(words: tuple[str, ...], status: int, number: signal.Signals) -> None:
    with tempfile.TemporaryDirectory(prefix="lobu-test-") as name:
        environment = {one: value for one, value in os.environ.items() if not one.startswith(("LOBU_", "DATABASE_"))}
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            env={**environment, "TMPDIR": name},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            trio.run(until, lambda: _is_up(name), "the measured server is up", 90)
            process.send_signal(number)
            process.wait(60)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == status
        assert [one for one in psutil.process_iter() if _is_of(one, name)] == []
        assert list(Path(name).iterdir()) == []


def _is_up(folder: str) -> bool:
    """Not by `rglob`: what is walked through comes and goes, as the folder in which a database is made."""
    return any("gateway_url" in names for path, _, names in os.walk(folder) if path.endswith("/.lobu"))


def _is_of(process: psutil.Process, folder: str) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and folder in (process.cwd() + str(process.environ()))
    except (psutil.Error, OSError):
        return False

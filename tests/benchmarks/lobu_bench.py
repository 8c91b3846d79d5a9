"""`lobu bench` as an operator runs it."""

from __future__ import annotations

import os
import subprocess
import sys

LOBU = (sys.executable, "-m", "supervisor.cli.main")


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LOBU_", "DATABASE_"))}
    done = subprocess.run([*LOBU, "bench", *words], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done

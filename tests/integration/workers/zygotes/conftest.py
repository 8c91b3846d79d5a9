"""Worker types with a zygote, and what the spawner says of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from supervisor.workers.types import WorkerType
from tests.workers.forking import PROGRAM


@pytest.fixture
def program(tmp_path: Path, host: Any) -> Callable[[str], Path]:
    """Make two worker types of one program, `zygote` and `exec`, with `body` loaded before `serve`; gives its path."""

    def make(body: str = "") -> Path:
        path = tmp_path / "program.py"
        path.write_text(PROGRAM.format(body=body))
        host.types["zygote"] = WorkerType("zygote", (sys.executable, str(path)), zygote=True)
        host.types["exec"] = WorkerType("exec", (sys.executable, str(path)))
        return path

    return make


@pytest.fixture
def notices() -> Iterator[Callable[[], list[str]]]:
    """What the spawner told the operator so far."""
    with structlog.testing.capture_logs() as logs:
        yield lambda: [entry["text"] for entry in logs if entry["event"] == "spawner.notice"]

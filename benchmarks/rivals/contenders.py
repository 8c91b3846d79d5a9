"""Who is measured, by name, and how each is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.rivals import install
from benchmarks.rivals.places import Contender, Ours, Rival

Make = Callable[[Path, str], Contender]  # in a folder, with a database's URL


def _service(name: str, module: str) -> Callable[[], Make]:
    """A Python service in a venv of its own."""

    def prepare() -> Make:
        python = install.python_of(name)
        command = [python, "-m", f"benchmarks.rivals.{module}"]
        return lambda folder, database_url: Rival(name, folder, database_url, command, {})

    return prepare


# Each installs what it needs (NotToBeHad when it cannot), and gives a way to make one.
CONTENDERS: Mapping[str, Callable[[], Make]] = {
    "lobu": lambda: Ours,
    "asyncio": _service("asyncio", "plain"),
    "pgqueuer": _service("pgqueuer", "queued"),
    "dbos": _service("dbos", "durable"),
}

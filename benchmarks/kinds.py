"""The kinds of benchmarks by name, and what each is given.

A kind is a module with `WHAT`, one sentence, and `measure(bench) -> Result`. It is loaded when it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import click

from benchmarks.results import Result
from benchmarks.server import AGENTS, FORKED, LIMITS, Given, Server, own_server

# In the order in which they are run; one line each.
KINDS = {
    "terminal": "benchmarks.terminal",
    "crash": "benchmarks.crash",
    "hang": "benchmarks.hang",
    "failover": "benchmarks.failover",
    "restart": "benchmarks.restart",
    "stream": "benchmarks.stream",
    "accept": "benchmarks.accept",
    "spawn": "benchmarks.spawn",
    "idle": "benchmarks.idle",
    "snapshot": "benchmarks.snapshot",
    "resume": "benchmarks.resume",
    "hosts": "benchmarks.hosts",
    "looked-at": "benchmarks.looked_at",
    "filled": "benchmarks.filled",
}


FLOORS, FEW_FLOORS = 200, 40


@attrs.frozen
class Bench:
    """`quick`: seconds, to see that it works. `repeat` and `rate` (messages a second) are the operator's, if any."""

    quick: bool = False
    given: Given | None = None
    repeat: int | None = None
    rate: float | None = None
    progress: Callable[[str], None] = lambda line: None

    @property
    def floors(self) -> int:
        """How often each part of a floor is measured, before and after."""
        return FEW_FLOORS if self.quick else FLOORS

    def often(self, full: int, quick: int) -> int:
        return self.repeat or (quick if self.quick else full)

    def own_only(self, kind: str) -> None:
        """Raises ClickException when a server is given that must not be killed or cannot be looked into."""
        if self.given is not None:
            raise click.ClickException(f"`{kind}` is measured on a server of its own only; leave --url away.")

    @contextmanager
    def target(self) -> Iterator[Target]:
        if self.given is not None:
            yield Target(self.given.url, self.given.key, self.given.agent, self.given.database, None)
            return
        with own_server(LIMITS + AGENTS) as server:
            yield Target(server.url, server.key, FORKED, server.database_url, server)


@attrs.frozen
class Target:
    """The server that is measured. `server` is None when it is not ours."""

    url: str
    key: str
    agent: str | None
    database_url: str | None
    server: Server | None


def measure(name: str, bench: Bench) -> Result:
    result: Result = importlib.import_module(KINDS[name]).measure(bench)
    return result


def what(name: str) -> str:
    sentence: str = importlib.import_module(KINDS[name]).WHAT
    return sentence

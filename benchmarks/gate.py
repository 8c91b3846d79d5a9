"""What a turn may cost: ratios that a change may not double unnoticed, and that another machine does not change.

No time of day is in it. CPU of the server's processes for each turn is set beside the CPU that a fixed piece of Python
(for the supervisor), and a bare commit (for Postgres), take in the same seconds; the
median of several rounds counts. Wakeups are counted. Limits lie between what was found on idle and on busy machines and
twice that. Calls of functions are counted too (`benchmarks.calls`). How often a turn goes to the database is exact, and
has a test: `tests/system/test_statements.py`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from statistics import median

import attrs
import h11
import psycopg

from benchmarks.generator import generate
from benchmarks.server import FORKED, Server, nanoseconds

ROUNDS, TURNS = 5, 150
EVERY_SECONDS = 0.003
REQUEST = b'POST /api/v1/agents/x/messages HTTP/1.1\r\nhost: bench\r\ncontent-length: 19\r\n\r\n{"content":"hello"}'


@attrs.frozen
class Gate:
    """`limit`: the ratio that is too much."""

    name: str
    limit: float
    ratios: Sequence[float]

    @property
    def value(self) -> float:
        return median(self.ratios)

    @property
    def broken(self) -> bool:
        return self.value >= self.limit

    def __str__(self) -> str:
        every = ", ".join(f"{ratio:.2f}" for ratio in self.ratios)
        return f"{self.name}: {self.value:.2f}, must be below {self.limit:g} (rounds: {every})"


# Beside each what was found here, idle and with four times as much to run as there are CPUs. When a turn has become
# cheaper, take its limit down with it: a limit of more than twice what is found catches nothing.
LIMITS = {
    "CPU a turn, supervisor and edge, to a piece of Python": 20.0,  # 8.4 on a quick machine to 16
    "CPU a turn, worker, to a piece of Python": 2.0,  # 1.2 to 1.4
    "CPU a turn, Postgres, to two bare commits": 5.0,  # 2.3 to 3.7
    "wakeups a turn, supervisor and edge": 6.0,  # 2.5 to 4.2
    "wakeups a turn, worker": 3.0,  # 2.0
}


def gates(server: Server) -> list[Gate]:
    """A warm turn of one conversation, again and again."""
    rounds = [_round(server) for _ in range(ROUNDS + 1)][1:]  # the first one warms up
    return [Gate(name, limit, [one[name] for one in rounds]) for name, limit in LIMITS.items()]


def _round(server: Server) -> dict[str, float]:
    cpu: list[dict[str, float]] = []
    wakeups: list[dict[str, int]] = []

    def look(said: str) -> None:
        cpu.append({**server.cpu(), "bare": beside.backend_seconds()})
        wakeups.append(server.wakeups())

    plan = {"conversations": 1, "turns": TURNS, "rate": 0.0, "warm": 2, "content": "hello"}
    with Beside(server.database_url) as beside:
        generate(server.url, server.key, "turns", look, agent=FORKED, **plan)
    used = {part: (cpu[1][part] - cpu[0][part]) / TURNS for part in cpu[0]}
    woken = {part: (wakeups[1][part] - wakeups[0][part]) / TURNS for part in wakeups[0]}
    main, worker, postgres, main_woken, worker_woken = LIMITS
    return {
        main: used["main"] / beside.unit,
        worker: used["workers"] / beside.unit,
        postgres: (used["postgres"] - used["bare"]) / (2 * beside.commit),
        main_woken: woken["main"],
        worker_woken: woken["workers"],
    }


class Beside:
    """A thread that does one piece of Python and one bare commit every few milliseconds while the turns run, so that
    it meets the same neighbours with as cold a cache. Behind the `with`: `unit` and `commit`, CPU seconds of one."""

    def __init__(self, database_url: str) -> None:
        self.unit = self.commit = 0.0
        self._units: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._connection = psycopg.connect(database_url, autocommit=True)

    def backend_seconds(self) -> float:
        return nanoseconds(self._connection.info.backend_pid) / 1e9

    def __enter__(self) -> Beside:
        self._connection.execute("CREATE TABLE bench_floor (id bigserial PRIMARY KEY, data text)")
        for _ in range(10):
            self._commit()
        self._begun = self.backend_seconds()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.unit = median(self._units)
        self.commit = (self.backend_seconds() - self._begun) / len(self._units)
        self._connection.execute("DROP TABLE bench_floor")
        self._connection.close()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            begun = time.thread_time()
            _piece()
            self._units.append(time.thread_time() - begun)
            self._commit()

    def _commit(self) -> None:
        self._connection.execute("INSERT INTO bench_floor (data) VALUES (%s)", ("x" * 200,), prepare=True)


def _piece() -> None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(REQUEST)
    while connection.next_event() not in (h11.NEED_DATA, h11.PAUSED):
        pass
    json.loads(json.dumps({"messageId": "m" * 32, "content": "hello", "numbers": list(range(20))}))

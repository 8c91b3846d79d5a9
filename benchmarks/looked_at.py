"""What it costs that somebody looks: turns a second in phases with and without a reader of the operations stream.

One load goes on through all phases, each conversation's next message when it has the end of the one before, so that
what a phase ends is all that the machine can do. The phases alternate, and the order within each pair does too: a drift
favours neither. The reader is on the same machine and reads as a page does, so the cost of sending is in it; what a
browser does with it is not. On a machine with other work to do turns a second say little; what the server's own process
used for a turn says the same, and does not depend on what else ran.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from statistics import mean, stdev
from urllib.parse import urlsplit

from benchmarks import floors
from benchmarks.generator import generate
from benchmarks.histogram import Histogram
from benchmarks.kinds import Bench, Target
from benchmarks.results import Figure, Latency, Result
from benchmarks.server import FORKED
from benchmarks.terminal import WARM_COMMITS, parts, path_of

WHAT = "turns a second while somebody has /ops open, and while nobody has"
CONVERSATIONS = 16
PHASE_SECONDS, SHORT_SECONDS = 3.0, 1.0
PHASES, FEW_PHASES = 48, 4  # a multiple of four: closed, open, open, closed
QUIET_LOOKS, FEW_LOOKS = 20, 2
CONTENT = "hello"


def measure(bench: Bench) -> Result:
    seconds = SHORT_SECONDS if bench.quick else PHASE_SECONDS
    phases = bench.often(PHASES, FEW_PHASES) // 4 * 4 or 4
    with bench.target() as target, floors.Beside(parts(target, bench.floors)) as beside:
        bench.progress(f"looked-at: {phases} phases of {seconds:g} s")
        looker = _Looker(target, phases, seconds)
        told = generate(
            target.url,
            target.key,
            "busy",
            looker.on_said,
            agent=target.agent or FORKED,
            conversations=CONVERSATIONS,
            seconds=phases * seconds,
            phase_seconds=seconds,
            content=CONTENT,
        )
        alone = looker.cpu_of_a_look(QUIET_LOOKS if not bench.quick else FEW_LOOKS)
    ended = told["phases"][:phases]
    closed = [turns / seconds for turns, looks in zip(ended, _looks(phases), strict=True) if not looks]
    opened = [turns / seconds for turns, looks in zip(ended, _looks(phases), strict=True) if looks]
    falls = [100 * (1 - after / before) for before, after in zip(_pairs(closed), _pairs(opened), strict=True)]
    latency = Latency(
        f"{CONVERSATIONS} conversations, each its next message at once",
        Histogram.decode(told["histogram"]),
        path_of(beside.medians(), WARM_COMMITS),
        {"client CPU share": told["client_cpu"]},
    )
    used = [
        looker.cpu[looks] / max(sum(n for n, one in zip(ended, _looks(phases), strict=True) if one is looks), 1) * 1e3
        for looks in (False, True)
    ]
    figures = [
        Figure("turns a second, nobody looks", mean(closed), "1/s"),
        Figure("turns a second, somebody looks", mean(opened), "1/s"),
        Figure("fall of throughput", mean(falls), "%"),
        Figure("fall of throughput, standard error", stdev(falls) / len(falls) ** 0.5 if len(falls) > 1 else 0.0, "%"),
        Figure("CPU of supervisor and edge a turn, nobody looks", used[0], "ms"),
        Figure("CPU of supervisor and edge a turn, somebody looks", used[1], "ms"),
        Figure("CPU of supervisor and edge a look, nothing else to do", alone, "ms"),
        Figure("looks", float(looker.looks), "times"),
        Figure("bytes a look", looker.bytes / max(looker.looks, 1), "bytes"),
    ]
    return Result("looked-at", WHAT, {"phases": phases, "phase_seconds": seconds}, [latency], figures)


def _looks(phases: int) -> list[bool]:
    return [number % 4 in (1, 2) for number in range(phases)]


def _pairs(rates: Sequence[float]) -> list[float]:
    """Of each four phases the two of one kind, which lie around the two of the other, or between them."""
    return [mean(rates[first : first + 2]) for first in range(0, len(rates), 2)]


class _Looker:
    """Reads the stream in every other pair of phases, beginning with the load's own beginning."""

    def __init__(self, target: Target, phases: int, seconds: float) -> None:
        self._target = target
        self._phases = phases
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.looks = 0
        self.bytes = 0
        self.cpu = {False: 0.0, True: 0.0}  # seconds, by whether somebody looked

    def on_said(self, word: str) -> None:
        if word == "begin":
            self._thread.start()
        else:
            self._over.set()
            self._thread.join()

    def _run(self) -> None:
        """By the load's clock: what a sample takes must not move the phases."""
        begun, at = time.monotonic(), self._used()
        for first in range(0, self._phases, 4):
            for looks, end in ((False, first + 1), (True, first + 3), (False, first + 4)):
                left = max(0.0, begun + end * self._seconds - time.monotonic())
                if looks:
                    self._look(left)
                else:
                    self._over.wait(left)
                before, at = at, self._used()
                self.cpu[looks] += at - before
                if self._over.is_set():
                    return

    def cpu_of_a_look(self, seconds: float) -> float:
        """Milliseconds, when the load is over and its conversations and workers stand still; one look a second."""
        looks, at = self.looks, self._used()
        time.sleep(seconds)
        resting = self._used() - at
        at = self._used()
        self._look(seconds)
        return (self._used() - at - resting) / max(self.looks - looks, 1) * 1e3

    def _used(self) -> float:
        return 0.0 if self._target.server is None else self._target.server.cpu()["main"]

    def _look(self, seconds: float) -> None:
        place = urlsplit(self._target.url)
        with socket.create_connection((place.hostname or "", place.port or 80), timeout=10) as connection:
            cut = threading.Timer(seconds, connection.shutdown, (socket.SHUT_RDWR,))
            cut.start()
            head = f"GET /api/v1/ops/events HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {self._target.key}\r\n\r\n"
            connection.sendall(head.encode())
            while data := connection.recv(1 << 16):
                self.looks += data.count(b"event: house\n")
                self.bytes += len(data)
            cut.cancel()  # when the server ended it first
            cut.join()

"""Durable accepts a second: writers that post as fast as they are answered, to conversations that are busy."""

from __future__ import annotations

import math
import re
import subprocess
import tempfile

import psycopg

from benchmarks import floors
from benchmarks.generator import generate
from benchmarks.histogram import Histogram
from benchmarks.kinds import Bench
from benchmarks.results import Figure, Latency, Result
from benchmarks.terminal import Use
from lobu_actors.store.embedded import find_programs

WHAT = "durable accepts a second, 32 writers"
WRITERS, FEW_WRITERS = 32, 4
SECONDS, FEW_SECONDS = 10.0, 1.0
_TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)


def measure(bench: Bench) -> Result:
    writers, seconds = (FEW_WRITERS, FEW_SECONDS) if bench.quick else (WRITERS, SECONDS)
    with bench.target() as target:
        rates = []
        if (database := target.database_url) is not None:
            rates.append(commits_a_second(database, writers, seconds / 2))
        one: floors.Parts = {"request": lambda: floors.loopback_request(bench.floors)}
        if database is not None:
            one["commit"] = lambda: floors.commit(database, bench.floors)
        use = Use(target.server)
        bench.progress(f"accept: {writers} writers")
        with floors.Beside(one) as beside:
            plan = {"conversations": writers, "seconds": seconds}
            told = generate(target.url, target.key, "accept", use.look, agent=target.agent, **plan)
        if database is not None:
            rates.append(commits_a_second(database, writers, seconds / 2))
    taken = Histogram.decode(told["histogram"])
    floor = sum(rates) / len(rates) if rates else None
    figures = {"client CPU share": told["client_cpu"], **use.per(len(taken), "accept")}
    return Result(
        "accept",
        WHAT,
        {"writers": writers, "seconds": seconds},
        [Latency(f"accept, {writers} writers", taken, beside.medians(), figures)],
        [Figure("durable accepts a second", len(taken) / told["wall"], "1/s", floor, more_is_better=True)],
    )


def commits_a_second(database_url: str, writers: int, seconds: float) -> float:
    """Bare inserts of one row, each committed, over as many connections, by pgbench."""
    with psycopg.connect(database_url, autocommit=True) as owner, tempfile.NamedTemporaryFile("w") as script:
        script.write("INSERT INTO bench_floor (data) VALUES (repeat('x', 200));\n")
        script.flush()
        owner.execute("CREATE TABLE IF NOT EXISTS bench_floor (id bigserial PRIMARY KEY, data text)")
        try:
            options = ["--no-vacuum", "--protocol=prepared", f"--client={writers}", "--jobs=2"]
            options += [f"--time={math.ceil(seconds)}", f"--file={script.name}", database_url]
            command = [str(find_programs() / "pgbench"), *options]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        finally:
            owner.execute("DROP TABLE bench_floor")
    found = _TPS.search(done.stdout)
    if found is None:
        raise RuntimeError(f"pgbench did not say its rate:\n{done.stdout}{done.stderr}")
    return float(found[1])

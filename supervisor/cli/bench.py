"""`lobu bench`: the benchmarks, against a server that it starts itself."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

import click

from benchmarks import growth, hosts, paths, spawn
from benchmarks.results import Result, report
from benchmarks.server import own_server
from supervisor.cli.options import example

PATHS = ("terminal", "crash", "snapshot", "spawn")
OF_SEVERAL = "hosts"  # starts hosts of its own; only when it is asked for


@click.command(
    "bench",
    epilog=example("lobu bench", "lobu bench crash --repeat 500 --json", "lobu bench snapshot --plot growth.svg"),
)
@click.argument("names", nargs=-1, type=click.Choice((*PATHS, OF_SEVERAL)))
@click.option(
    "--repeat", type=click.IntRange(10, 1_000_000), help="Repetitions; default 1000 turns, 100 kills or starts."
)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Where snapshot's plot goes, as SVG.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with machine and versions.")
def command(names: tuple[str, ...], repeat: int | None, plot: Path | None, as_json: bool) -> None:
    """Measure what a client waits for, beside the floor of its own parts in the same run; and, as `snapshot`, what a
    turn costs at the beginning and at the end of a session that grows to 20 MB; as `spawn`, how long a worker takes to
    start and what it occupies; as `hosts`, what three hosts on one Postgres cost and bring.

    Starts a `lobu run` of its own in a temporary folder and stops it afterwards.
    """
    if plot is not None and "snapshot" not in (names or PATHS):
        raise click.UsageError("--plot is of snapshot, which is not measured here")
    show = sys.stderr.isatty()

    def progress(line: str) -> None:
        if show:
            click.echo(f"\r\033[K{line}", nl=False, err=True)

    results: list[Result | growth.Growth | spawn.Spawning | hosts.Hosts] = []
    alone = [name for name in names or PATHS if name != OF_SEVERAL]
    with own_server() if alone else nullcontext() as server:
        for name in alone:
            assert server is not None
            if name == "terminal":
                results.append(paths.terminal(server, repeat or 1000, progress))
            elif name == "crash":
                results.append(paths.crash(server, repeat or 100, progress))
            elif name == "spawn":
                results.append(spawn.spawn(server, repeat or 100, progress))
            else:
                grown = growth.snapshot(server, repeat or 1000, progress)
                results.append(grown)
                if plot is not None:
                    plot.write_text(grown.as_svg())
    if OF_SEVERAL in names:
        results.append(hosts.hosts(repeat or 500, progress))
    progress("")
    click.echo(report(results, as_json))

"""`lobu bench`: the benchmarks, against a server that it starts itself."""

from __future__ import annotations

import sys

import click

from benchmarks import paths
from benchmarks.results import report
from benchmarks.server import own_server
from supervisor.cli.options import example

PATHS = ("terminal", "crash")


@click.command("bench", epilog=example("lobu bench", "lobu bench crash --repeat 500 --json"))
@click.argument("names", nargs=-1, type=click.Choice(PATHS))
@click.option("--repeat", type=click.IntRange(10, 1_000_000), help="Repetitions; default 1000 turns, 100 kills.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with machine and versions.")
def command(names: tuple[str, ...], repeat: int | None, as_json: bool) -> None:
    """Measure what a client waits for, beside the floor of its own parts in the same run.

    Starts a `lobu run` of its own in a temporary folder and stops it afterwards.
    """
    show = sys.stderr.isatty()

    def progress(line: str) -> None:
        if show:
            click.echo(f"\r\033[K{line}", nl=False, err=True)

    results = []
    with own_server() as server:
        for name in names or PATHS:
            if name == "terminal":
                results.append(paths.terminal(server, repeat or 1000, progress))
            else:
                results.append(paths.crash(server, repeat or 100, progress))
    progress("")
    click.echo(report(results, as_json))

"""`lobu bench`: each kind of benchmark as a command, and what is made of the runs that they leave."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

from supervisor.cli.options import example, json_option, print_json

try:
    from benchmarks import calls, children, compare, gate, report
    from benchmarks.kinds import KINDS, Bench, measure, what
    from benchmarks.results import Run, run_of
    from benchmarks.server import Given, own_server
except ModuleNotFoundError as missing:
    raise click.ClickException(
        f"the benchmarks need {missing.name}; install them with `pip install 'lobu-actors[bench]'`."
    ) from None

ALL = "all"


class Kinds(click.Group):
    """A command for each kind, beside those that are written out below."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*KINDS, ALL, *sorted(self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in KINDS:
            return _command(cmd_name, (cmd_name,), what(cmd_name)[0].upper() + what(cmd_name)[1:] + ".")
        if cmd_name == ALL:
            return _command(ALL, tuple(KINDS), "All kinds, one after the other.")
        return super().get_command(ctx, cmd_name)


@click.group(
    "bench",
    cls=Kinds,
    epilog=example(
        "lobu bench terminal",
        "lobu bench terminal --url https://agents.example.com --key $KEY --rate 20 --repeat 200",
        "lobu bench all --quick --output before.json",
        "lobu bench report before.json after.json --output report.html",
        "lobu bench compare before.json after.json",
    ),
)
def command() -> None:
    """Measure what a client waits for, beside the floor of its own parts in the same run.

    Starts a `lobu run` of its own in a temporary folder and ends it afterwards, unless --url names a server:
    `terminal`, `accept`, `stream` and `resume` can be measured on any (`accept` and `stream` where an agent's worker
    is `python -m benchmarks.agent`).
    """
    signal.signal(signal.SIGTERM, _interrupted)  # so that what was started is ended


def _command(name: str, kinds: tuple[str, ...], text: str) -> click.Command:
    @click.command(name, help=text, epilog=example(f"lobu bench {name}", f"lobu bench {name} --quick --json"))
    @click.option("--quick", is_flag=True, help="Only to see that it works: seconds, and figures of little worth.")
    @click.option("--repeat", type=click.IntRange(1, 1_000_000), help="Repetitions, for each thing that is measured.")
    @click.option("--rate", type=click.FloatRange(0.1, 100_000), help="Messages a second, where a kind has a rate.")
    @click.option("--url", help="A running server; default: one of our own.")
    @click.option("--key", envvar="LOBU_API_KEY", help="Its API key.")
    @click.option("--agent", help="The agent to talk to there; default: the key's organization's default agent.")
    @click.option(
        "--database-url", help="Its database, to measure bare commits there; a table bench_floor comes and goes."
    )
    @click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Keep the run there, as JSON.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, with machine, versions and histograms.")
    def run(
        quick: bool,
        repeat: int | None,
        rate: float | None,
        url: str | None,
        key: str | None,
        agent: str | None,
        database_url: str | None,
        output: Path | None,
        as_json: bool,
    ) -> None:
        if (url is None) != (key is None):
            raise click.UsageError("--url and --key (or LOBU_API_KEY) belong together")
        given = None if url is None or key is None else Given(url.rstrip("/"), key, agent, database_url)
        bench = Bench(quick, given, repeat, rate, _progress)
        with children.none_left():
            found = run_of([measure(kind, bench) for kind in kinds])
        _progress("")
        if output is not None:
            output.write_text(found.as_json())
        click.echo(found.as_json() if as_json else found.as_text())

    return run


def _interrupted(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{line}", nl=False, err=True)


RUN = click.Path(exists=True, dir_okay=False, path_type=Path)


@command.command("report", epilog=example("lobu bench report before.json after.json --output report.html"))
@click.argument("runs", nargs=-1, required=True, type=RUN)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("report.html"), show_default=True
)
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="Put each plot there too, as SVG.")
def report_command(runs: tuple[Path, ...], output: Path, plots: Path | None) -> None:
    """Make one HTML page of runs that were kept with --output."""
    found = {path.stem: Run.read(path) for path in runs}
    if len(found) < len(runs):
        raise click.UsageError("two of the files have one name; each run is shown under its own")
    output.write_text(report.page(found))
    click.echo(f"{output} shows {', '.join(found)}.")
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
        for name, svg in report.all_plots(found).items():
            (plots / f"{name}.svg").write_text(svg)


@command.command("compare", epilog=example("lobu bench compare before.json after.json"))
@click.argument("before", type=RUN)
@click.argument("after", type=RUN)
@json_option
def compare_command(before: Path, after: Path, as_json: bool) -> None:
    """Show what changed between two runs, by the distance of each thing from the floor of its own run."""
    found = compare.changes(Run.read(before), Run.read(after))
    if as_json:
        print_json([change.as_json() for change in found])
    else:
        click.echo(compare.as_text(found))


@command.command("gate", epilog=example("lobu bench gate"))
def gate_command() -> None:
    """Fail when a turn costs more than it may, in CPU beside a bare floor, wakeups and calls: what CI checks."""
    with children.none_left():
        with own_server() as server:
            found = gate.gates(server)
        found.append(calls.gate())
    for one in found:
        click.echo(str(one))
    if any(one.broken for one in found):
        raise click.ClickException("a turn costs too much; see which commit did it, or say in benchmarks/gate.py why.")

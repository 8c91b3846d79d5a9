"""`make bench-rivals`: everybody on the same work, in alternating order, and what came out.

Downloads what is pinned, the first time. Exits with 1 when somebody could not be measured.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import attrs
import click

from benchmarks.children import none_left
from benchmarks.results import run_of
from benchmarks.rivals import table
from benchmarks.rivals.contenders import CONTENDERS, Make
from benchmarks.rivals.install import NotToBeHad, versions
from benchmarks.rivals.measures import Found, Plan, measure
from benchmarks.rivals.places import ROOT, new_place

ROUNDS = 3
PAGE = ROOT / "docs" / "benchmarks" / "rivals.md"


@click.command(help="Measure this project and its rivals on the same work, one after the other.")
@click.option("--only", help=f"Some of them: {','.join(CONTENDERS)}. lobu is always measured.")
@click.option("--quick", is_flag=True, help="One short round, to see that it works; figures of little worth.")
@click.option("--rounds", type=click.IntRange(1, 100), help=f"Medians of so many; default {ROUNDS}, quick 1.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Keep all figures there, as JSON.")
@click.option("--write-page", is_flag=True, help=f"Put the table into {PAGE.relative_to(ROOT)}.")
def main(only: str | None, quick: bool, rounds: int | None, output: Path | None, write_page: bool) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is ended
    wanted = list(CONTENDERS) if only is None else ["lobu", *(name for name in only.split(",") if name != "lobu")]
    if unknown := [name for name in wanted if name not in CONTENDERS]:
        raise click.UsageError(f"--only: no {', '.join(unknown)}; there are {', '.join(CONTENDERS)}")
    problems: list[str] = []
    makers = _prepare(wanted, problems)
    plan = Plan.quick() if quick else Plan()
    found: dict[str, list[Found]] = {name: [] for name in makers}
    about = {**run_of([]).about, "pins": {name: versions(name) for name in makers if versions(name)}}
    for number in range(rounds or (1 if quick else ROUNDS)):
        order = list(makers) if number % 2 == 0 else list(reversed(makers))
        for name in order:
            try:
                found[name].append(_one(makers[name], plan, f"round {number + 1}: "))
            except Exception as error:  # whatever a rival does, the others are measured
                problems.append(f"{name}, round {number + 1}: {type(error).__name__}: {error}")
            if output is not None:  # an hour's figures are not lost with their last minute
                whole = {name: results for name, results in found.items() if results}
                output.write_text(json.dumps(table.as_json(about, attrs.asdict(plan), whole), indent=1) + "\n")
    found = {name: results for name, results in found.items() if results}
    _progress("")
    if write_page:
        table.write_into(PAGE, table.as_markdown(found))
    click.echo(table.as_text(found))
    click.echo("\n" + table.as_markdown(found))
    if problems:
        raise click.ClickException("not measured:\n" + "\n".join(problems))


def _prepare(wanted: list[str], problems: list[str]) -> dict[str, Make]:
    makers: dict[str, Make] = {}
    for name in wanted:
        _progress(f"{name}: installing")
        try:
            makers[name] = CONTENDERS[name]()
        except NotToBeHad as why:
            problems.append(str(why))
    return makers


def _one(make: Make, plan: Plan, prefix: str) -> Found:
    with none_left(), new_place() as (folder, database):
        contender = make(folder, database)
        try:
            contender.start()
            return measure(contender, database, plan, lambda line: _progress(prefix + line))
        finally:
            contender.kill_all()


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{line}", nl=False, err=True)


if __name__ == "__main__":
    main()

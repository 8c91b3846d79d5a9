"""`lobu rollout`: how a new release gets onto the hosts. `plan` says which way, and why; `run` does it on this one."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import attrs
import click

from lobu_actors.store.database_url import EmbeddedDatabase, parse_database_url
from supervisor.cli.database import load_for_database
from supervisor.cli.options import database_options, example, json_option, print_json
from supervisor.config.values import RolloutStrategy
from supervisor.rollout import STEPS, STRATEGIES, Plan, Preconditions, plan
from supervisor.systemd.rollout import roll


@click.group("rollout", epilog=example("lobu rollout plan", "lobu rollout plan --strategy recreate"))
def command() -> None:
    """Deploy a new release."""


@command.command("plan", epilog=example("lobu rollout plan", "lobu rollout plan --json"))
@click.option("--strategy", type=click.Choice(STRATEGIES), help="Override; LOBU_ROLLOUT_STRATEGY does the same.")
@json_option
@database_options
def plan_command(
    strategy: str | None, as_json: bool, config: Path | None, data_dir: Path | None, database_url: str | None
) -> None:
    """Say whether hosts can be replaced one after another (rolling), or the old one must stop before the new one starts
    (recreate), and what decides that. Changes nothing.

    An override decides first: --strategy, else LOBU_ROLLOUT_STRATEGY. Without one it is rolling when
    LOBU_ALLOW_MULTI_HOST is set and sessions are in snapshots or on shared storage, else recreate.
    """
    settings = load_for_database(config, data_dir, database_url)
    found = Preconditions.of(settings)
    made = plan(cast(RolloutStrategy | None, strategy) or settings.rollout_strategy, found)
    source = None
    if made.decided_by == "override":
        source = "--strategy" if strategy else "LOBU_ROLLOUT_STRATEGY"
    embedded = isinstance(parse_database_url(settings.database.url, settings.data_dir), EmbeddedDatabase)
    if made.strategy == "rolling" and embedded and made.warning is None:
        made = attrs.evolve(made, warning="the database is embedded in one host; others cannot reach it")
    if as_json:
        print_json(_as_json(made, found, source))
    else:
        click.echo("\n".join(_lines(made, found, source)))


@command.command("run", epilog=example("lobu rollout run"))
@json_option
def run_command(as_json: bool) -> None:
    """Restart this host's systemd units on what is installed now: each edge in turn, then the supervisor.

    Each must be ready before the next is touched; the first that is not ends the rollout, exit 1. Running turns go on,
    streams resume. For several hosts, run it on one after the other.
    """
    units = roll((lambda line: None) if as_json else click.echo)
    if as_json:
        print_json({"restarted": units})


def _as_json(made: Plan, found: Preconditions, source: str | None) -> dict[str, object]:
    return {
        "strategy": made.strategy,
        "decidedBy": source or "preconditions",
        "because": made.because,
        "warning": made.warning,
        "preconditions": {"allowMultiHost": found.allow_multi_host, "sessions": found.sessions},
        "steps": list(STEPS[made.strategy]),
    }


def _lines(made: Plan, found: Preconditions, source: str | None) -> list[str]:
    lines = [
        f"strategy  {made.strategy}",
        f"decided   by {source}: {made.because}" if source else f"decided   {made.because}",
        "",
        "1. override                none"
        if source is None
        else f"1. override                {made.strategy}, {source}",
        f"2. LOBU_ALLOW_MULTI_HOST   {'set' if found.allow_multi_host else 'not set'}",
        f"3. sessions                {found.sessions}",
        "",
        *(f"- {step}" for step in STEPS[made.strategy]),
    ]
    return [*lines, "", f"Warning: {made.warning}."] if made.warning else lines

"""`lobu rollout`: how a new release gets onto the hosts. `plan` says which way, and why; `run` does it on this one."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import cast

import click
import trio
from msgspec.structs import replace

from lobu_actors.contract.states import HostState
from lobu_actors.store.database_url import EmbeddedDatabase, parse_database_url
from supervisor.cli.database import load_for_database, open_store
from supervisor.cli.options import database_options, example, json_option, print_json
from supervisor.config.errors import ConfigError
from supervisor.config.keys import read_small_file
from supervisor.config.load import Overrides, load_settings
from supervisor.config.settings import Settings
from supervisor.config.values import RolloutStrategy
from supervisor.membership import HOST_ID_FILE
from supervisor.rollout import STEPS, STRATEGIES, Plan, Preconditions, plan
from supervisor.rollout_turn import our_turn
from supervisor.systemd.render import ETC
from supervisor.systemd.rollout import SUPERVISOR, roll, running_edges, unit_property

BACK_SECONDS = 60.0  # from the last unit's readiness until the database says that the host is there


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
        made = replace(made, warning="the database is embedded in one host; others cannot reach it")
    if as_json:
        print_json(_as_json(made, found, source))
    else:
        click.echo("\n".join(_lines(made, found, source)))


@command.command("run", epilog=example("lobu rollout run", "lobu rollout run --wait 1800"))
@click.option(
    "--wait", type=click.FloatRange(0), default=600.0, show_default=True, help="Seconds for our turn to come."
)
@click.option("--drain/--no-drain", default=None, help="Hand turns to other hosts first; default: if there are others.")
@click.option(
    "--without", metavar="NAME", help="A host that stopped in the middle of its rollout and is gone for good."
)
@json_option
@database_options
def run_command(
    wait: float,
    drain: bool | None,
    without: str | None,
    as_json: bool,
    config: Path | None,
    data_dir: Path | None,
    database_url: str | None,
) -> None:
    """Restart this host's systemd units on what is installed now: each edge in turn, then the supervisor.

    Each must be ready before the next is touched; the first that is not ends the rollout, exit 1. Streams resume, and
    running turns go on: on this host, or with --drain on the others, so that the spawner can be a new one as well.

    Of the hosts on one database only one is restarted at a time, wherever this is run: it waits until the one before is
    back and ready.
    """
    found = partial(_installed, config, data_dir, database_url)
    units = trio.run(_run, found, (lambda line: None) if as_json else click.echo, wait, drain, without)
    if as_json:
        print_json({"restarted": units})


async def _installed(config: Path | None, data_dir: Path | None, database_url: str | None) -> Settings:
    """The settings of the units, but for what the options say."""
    folder = await unit_property(SUPERVISOR, "WorkingDirectory")
    if not folder:
        raise ConfigError("no units are installed here; run `lobu systemd install`.")
    etc = ETC
    if config is None and (etc / "lobu.toml").exists():
        config = etc / "lobu.toml"
    environ = {"CREDENTIALS_DIRECTORY": str(etc / "credentials"), **os.environ}
    return load_settings(
        config,
        data_dir=data_dir or Path(folder),
        overrides=Overrides(database_url=database_url),
        environ=environ,
    )


async def _run(
    installed: Callable[[], Awaitable[Settings]],
    tell: Callable[[str], None],
    wait: float,
    drain: bool | None,
    without: str | None,
) -> list[str]:
    await running_edges()
    settings = await installed()
    async with open_store(settings) as store:
        host_id = read_small_file(settings.state_dir / HOST_ID_FILE) or ""
        others = [
            host for host in await store.find_loads() if host.host_id != host_id and host.state is HostState.ACTIVE
        ]
        async with our_turn(
            store, host_id, socket.gethostname(), tell, wait_seconds=wait, back_seconds=BACK_SECONDS, without=without
        ):
            return await roll(tell, drain=bool(others) if drain is None else drain)


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

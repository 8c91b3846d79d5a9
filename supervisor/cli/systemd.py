"""`lobu systemd`: units for this installation of Lobu, and none any more."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

import supervisor
from supervisor.cli.options import example
from supervisor.config.errors import ConfigError
from supervisor.systemd.install import Target, install, uninstall
from supervisor.systemd.reach import out_of_reach
from supervisor.systemd.render import MAX_INSTANCES, Installation

_LISTEN = re.compile(r"(\[[0-9a-fA-F:]+\]|[0-9.]+):[0-9]{1,5}\Z")
_root = click.option(
    "--root", type=click.Path(path_type=Path, file_okay=False), default=Path("/"), help="An image's root; default: /."
)
_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")


@click.group("systemd", epilog=example("lobu systemd install --embedded", "systemctl start lobu.target"))
def command() -> None:
    """Run Lobu as systemd units: spawner, supervisor and edges, each with a life of its own."""


@command.command("install", epilog=example("lobu systemd install --database-url postgresql://lobu@db/lobu"))
@_root
@click.option(
    "--instances", type=click.IntRange(1, MAX_INSTANCES), default=2, show_default=True, help="Edges on this machine."
)
@click.option("--listen", default="127.0.0.1:8787", show_default=True, metavar="ADDRESS:PORT", help="For HTTP.")
@click.option("--user", default="lobu", show_default=True, help="Made if it does not exist.")
@click.option("--data-dir", type=click.Path(path_type=Path), default=Path("/var/lib/lobu"), show_default=True)
@click.option("--database-url", help="postgresql://… of a server elsewhere.")
@click.option("--embedded", is_flag=True, help="A database of its own on this machine.")
@_dry_run
def install_command(
    root: Path,
    instances: int,
    listen: str,
    user: str,
    data_dir: Path,
    database_url: str | None,
    embedded: bool,
    dry_run: bool,
) -> None:
    """Write units, configuration and keys for the program that runs this command. Repeatable; starts nothing."""
    if embedded == (database_url is not None):
        raise click.UsageError("say either --embedded or --database-url.")
    if not _LISTEN.match(listen):
        raise click.BadParameter("use ADDRESS:PORT, as in 0.0.0.0:8787 or [::]:8787", param_hint="--listen")
    if not data_dir.is_absolute():
        raise click.BadParameter("use an absolute path", param_hint="--data-dir")
    lobu = Path(sys.prefix) / "bin" / "lobu"
    if not lobu.exists():
        raise ConfigError(f"there is no {lobu}; install Lobu into the environment that runs this.")
    interpreter, package = Path(sys.executable).resolve(), Path(supervisor.__path__[0])
    installation = Installation(
        lobu=lobu,
        code=(Path(sys.prefix), interpreter, package),
        listen=listen,
        instances=instances,
        user=user,
        data_dir=data_dir,
        database_url=database_url,
    )
    target = Target(root.absolute(), dry_run, click.echo)
    if target.is_running and (place := out_of_reach((lobu, *installation.code), user)) is not None:
        raise ConfigError(
            f"the user {user} cannot get into {place}, where the program or its Python lies; install both where "
            "everybody may read, as in /opt/lobu with the system's python3."
        )
    if not install(installation, target):
        click.echo("Everything is in place already.")
    elif not dry_run:
        click.echo("Start it with `systemctl start lobu.target`.")


@command.command("uninstall", epilog=example("lobu systemd uninstall"))
@_root
@_dry_run
def uninstall_command(root: Path, dry_run: bool) -> None:
    """Stop the units, which drains, and remove them. Configuration, keys and data stay."""
    if not uninstall(Target(root.absolute(), dry_run, click.echo)):
        click.echo("No units are installed.")
    elif not dry_run:
        click.echo("Configuration in /etc/lobu and data are still there.")

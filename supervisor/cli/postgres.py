"""`lobu postgres`: the embedded database in a process of its own, for a unit."""

from __future__ import annotations

import os
from pathlib import Path

import click
import trio

from supervisor.cli.options import example
from supervisor.config.load import Overrides, load_settings
from supervisor.database import run_database
from supervisor.logs import configure_logging
from supervisor.systemd.notify import Notifier


@click.command("postgres", epilog=example("lobu postgres --data-dir /var/lib/lobu"))
@click.option("--data-dir", type=click.Path(path_type=Path), default=Path(), help="Where .lobu is kept; default: here.")
def command(data_dir: Path) -> None:
    """Run the embedded database of a folder and bring its schema up to date, until SIGTERM."""
    notifier = Notifier(os.environ)
    settings = load_settings(data_dir=data_dir, overrides=Overrides(database_url=f"file:{data_dir.absolute()}"))
    configure_logging(settings.log_format, journal=os.environ.get("JOURNAL_STREAM", ""))
    trio.run(run_database, settings, notifier)

"""`lobu spawner`: becomes the spawner program, for a unit that is given its socket. Must not import what is slow."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from supervisor.cli.options import example
from supervisor.config.keys import make_state_dir
from supervisor.config.load import load_settings
from supervisor.spawner.program import COMMAND, RECORDS_NAME


@click.command("spawner", epilog=example("lobu spawner --data-dir /var/lib/lobu"))
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file; default: lobu.toml, if it exists.")
@click.option("--data-dir", type=click.Path(path_type=Path), default=Path(), help="Where .lobu is kept; default: here.")
def command(config: Path | None, data_dir: Path) -> None:
    """Start, watch and reap this host's worker processes, for the supervisor that connects.

    A service manager starts this, and passes it a listening SOCK_SEQPACKET socket as descriptor 3.
    """
    settings = load_settings(config, data_dir=data_dir)
    folder = settings.state_dir / "spawner" / RECORDS_NAME
    make_state_dir(folder.parent)
    seconds = str(settings.limits.adoption_seconds)
    os.execv(sys.executable, [*COMMAND, "--folder", str(folder), "--abandon-seconds", seconds])

"""`lobu supervisor`: this host's supervisor without edge and spawner, for a unit."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import click
import trio

from supervisor.cli.options import database_options, example
from supervisor.config.keys import ensure_keys, make_state_dir
from supervisor.config.load import Overrides, load_settings
from supervisor.descriptors import raise_descriptor_limit
from supervisor.logs import configure_logging
from supervisor.reloading import Reloading
from supervisor.state_lock import state_lock
from supervisor.systemd.notify import Notifier
from supervisor.units import run_supervisor


@click.command("supervisor", epilog=example("lobu supervisor --config /etc/lobu/lobu.toml --data-dir /var/lib/lobu"))
@database_options
def command(config: Path | None, data_dir: Path | None, database_url: str | None) -> None:
    """Run this host's conversations; edges of this machine link to it over a socket in the state directory.

    The spawner's socket is expected in the state directory. SIGTERM drains, a second one stops at once; SIGUSR1 ends
    the process at once and leaves the workers to the next one, which goes on with their turns; SIGHUP reads the
    configuration again.
    """
    notifier = Notifier(os.environ)
    read = partial(load_settings, config, data_dir=data_dir, overrides=Overrides(database_url=database_url))
    settings = read()
    raise_descriptor_limit()
    configure_logging(settings.log_format, journal=os.environ.get("JOURNAL_STREAM", ""))
    make_state_dir(settings.state_dir)
    with state_lock(settings.state_dir):
        settings = ensure_keys(settings)
        reloading = Reloading(settings, lambda: ensure_keys(read()), notifier)
        trio.run(run_supervisor, settings, reloading, notifier)

"""`lobu edge`: one HTTP process without a supervisor in it, for a unit."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import click
import trio

from supervisor.cli.options import database_options, example
from supervisor.config.keys import ensure_keys
from supervisor.config.load import Overrides, load_settings
from supervisor.descriptors import raise_descriptor_limit
from supervisor.logs import configure_logging
from supervisor.reloading import Reloading
from supervisor.systemd.notify import Notifier, passed_sockets
from supervisor.units import run_edge


@click.command("edge", epilog=example("lobu edge --config /etc/lobu/lobu.toml --data-dir /var/lib/lobu --port 8787"))
@click.option("--host", help="Address to listen on, when no socket is passed; default 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on, when no socket is passed.")
@database_options
def command(
    host: str | None, port: int | None, config: Path | None, data_dir: Path | None, database_url: str | None
) -> None:
    """Serve HTTP for the supervisor that runs on the same data directory, now or later.

    Takes the listening sockets that a service manager passes. SIGTERM ends streams, which clients resume elsewhere, and
    finishes the requests under way; SIGHUP reads the configuration again.
    """
    notifier, sockets = Notifier(os.environ), passed_sockets(os.environ)
    overrides = Overrides(host=host, port=port, database_url=database_url)
    read = partial(load_settings, config, data_dir=data_dir, overrides=overrides)
    settings = ensure_keys(read())
    raise_descriptor_limit()
    configure_logging(settings.log_format, journal=os.environ.get("JOURNAL_STREAM", ""))
    reloading = Reloading(settings, lambda: ensure_keys(read()), notifier)
    trio.run(run_edge, settings, reloading, sockets, notifier)

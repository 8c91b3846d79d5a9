"""`lobu run`: everything on this machine, in the foreground."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path

import click
import trio

from supervisor.config.keys import (
    ADMIN_KEY_FILE,
    ensure_keys,
    make_state_dir,
    read_small_file,
    remove_gateway_url,
    write_gateway_url,
)
from supervisor.config.load import Overrides, load_settings
from supervisor.config.settings import Settings
from supervisor.descriptors import raise_descriptor_limit
from supervisor.everything import run_everything
from supervisor.logs import configure_logging
from supervisor.reloading import Reloading
from supervisor.state_lock import state_lock
from supervisor.systemd.notify import Notifier


@click.command(
    "run",
    short_help="Run everything on this machine.",
    epilog="Example: lobu run --port 8787, then in a second shell of the same folder: lobu chat hello",
)
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file; default: lobu.toml, if it exists.")
@click.option("--host", help="Address to listen on; default 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on, 0 for any free one; default 8787.")
@click.option("--database-url", help="postgres://… or a folder for the embedded server; DATABASE_URL is the same.")
@click.option("--data-dir", type=click.Path(path_type=Path), default=Path(), help="Where .lobu is kept; default: here.")
def command(config: Path | None, host: str | None, port: int | None, database_url: str | None, data_dir: Path) -> None:
    """Run the database, the supervisor with its workers, and the HTTP edge, until Ctrl-C.

    The first Ctrl-C (or SIGTERM) drains: running turns may finish. A second one stops at once. SIGHUP reads the
    configuration again; it is the end when the terminal is gone.
    """
    overrides = Overrides(host=host, port=port, database_url=database_url)
    read = partial(load_settings, config, data_dir=data_dir, overrides=overrides)
    settings = read()
    raise_descriptor_limit()
    configure_logging(settings.log_format, journal=os.environ.get("JOURNAL_STREAM", ""))
    make_state_dir(settings.state_dir)
    with state_lock(settings.state_dir):
        settings = ensure_keys(settings)
        reloading = Reloading(settings, lambda: ensure_keys(read()), Notifier({}))
        announced: list[str] = []

        def on_ready(port: int) -> None:
            announced.append(_announce(settings, port))

        try:
            trio.run(run_everything, settings, reloading, on_ready, click.echo)
        finally:
            for url in announced:
                remove_gateway_url(settings.data_dir, url)


def called() -> str:
    """This program as a person in this folder calls it: `lobu` where the PATH leads to it, else as it was called."""
    program, found = sys.argv[0], shutil.which("lobu")
    if os.path.basename(program) != "lobu" or (found is not None and os.path.samefile(found, program)):
        return "lobu"
    return shlex.quote(program)


def _announce(settings: Settings, port: int) -> str:
    """Tell the person at the terminal, and later commands in this folder, where this is."""
    host = settings.server.host
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    url = f"http://{shown}:{port}"
    write_gateway_url(settings.data_dir, url)
    click.echo(f"Listening on {url}")
    click.echo(f'Chat with it from a second shell in this folder:  {called()} chat "hello"')
    stored = settings.state_dir / ADMIN_KEY_FILE
    key = f"the key in {stored}" if read_small_file(stored) == settings.admin_key else "LOBU_ADMIN_KEY"
    click.echo(f"Or open it in a browser, {url}/ops to see how it is; sign in with {key}")
    return url

"""`lobu worker`: run a worker type on this machine for a gateway elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import attrs
import click
import trio

from supervisor.cli.options import example
from supervisor.config.errors import ConfigError
from supervisor.config.keys import make_state_dir
from supervisor.config.load import load_settings
from supervisor.config.settings import Settings
from supervisor.logs import configure_logging
from supervisor.remote.connection import Address, Refused
from supervisor.remote.runner import Runner
from supervisor.signals import obeying
from supervisor.state_lock import state_lock
from supervisor.workers.types import INTERPRETER, WorkerType

KEY_VARIABLE = "LOBU_WORKER_KEY"
MAX_SLOTS = 256
MAX_KEY_BYTES = 4096


@click.group("worker", epilog=example("lobu worker connect https://lobu.example.com --type gpu"))
def command() -> None:
    """Workers on this machine for a gateway elsewhere."""


@command.command(
    "connect",
    epilog=example(
        "LOBU_WORKER_KEY=lobu_… lobu worker connect https://lobu.example.com --type gpu -- python -m my_agent",
        "lobu worker connect http://10.0.0.5:8787 --type gpu --key-file key --slots 4",
    ),
)
@click.argument("url")
@click.option("--type", "type_name", required=True, help="The worker type; there it says remote = true.")
@click.option(
    "--key-file", type=click.Path(path_type=Path), help=f"File with the worker's key; default: {KEY_VARIABLE}."
)
@click.option("--slots", type=click.IntRange(1, MAX_SLOTS), default=1, show_default=True, help="Workers at once.")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration of this machine; default: lobu.toml.")
@click.option("--data-dir", type=click.Path(path_type=Path), default=Path(), help="Where .lobu is kept; default: here.")
@click.argument("program", nargs=-1)
def connect(
    url: str,
    type_name: str,
    key_file: Path | None,
    slots: int,
    config: Path | None,
    data_dir: Path,
    program: tuple[str, ...],
) -> None:
    """Run workers of a type here, for the conversations of the gateway at URL, until Ctrl-C.

    PROGRAM is what a worker is; without it, the command of [workers.TYPE] in this machine's lobu.toml, with its limits
    and its sandbox. The first Ctrl-C (or SIGTERM) lets running turns finish, a second one stops at once.
    """
    settings = load_settings(config, data_dir=data_dir)
    kind = _kind(settings, type_name, program)
    address = Address(url.rstrip("/"), _key(key_file))
    configure_logging(settings.log_format)
    make_state_dir(settings.state_dir)
    with state_lock(settings.state_dir):
        try:
            trio.run(_run, settings, kind, address, slots)
        except Refused as refused:
            raise click.ClickException(str(refused)) from None


async def _run(settings: Settings, kind: WorkerType, address: Address, slots: int) -> None:
    said: list[str] = []

    def let_in() -> None:
        if not said:
            said.append(kind.name)
            click.echo(f"Connected to {address.url} as a worker of type {kind.name}, {slots} at once")

    stopping = trio.Event()
    refused: list[Refused] = []
    async with obeying(stopping):
        try:
            await Runner(settings, kind, address, slots, let_in).run(stopping)
        except Refused as error:
            refused.append(error)
    if refused:
        raise refused[0]


def _kind(settings: Settings, name: str, program: tuple[str, ...]) -> WorkerType:
    kind = settings.workers.get(name)
    if program:
        found = sys.executable if program[0] == INTERPRETER else shutil.which(program[0])
        if found is None:
            raise click.UsageError(f"the program {program[0]!r} is not there; install it or give its path.")
        argv = (os.path.abspath(found), *program[1:])
        return WorkerType(name, argv) if kind is None or kind.remote else attrs.evolve(kind, command=argv)
    if kind is None or kind.remote:
        raise click.UsageError(
            f"this machine has no [workers.{name}] with a command; add one to its lobu.toml, or give the program "
            "behind `--`."
        )
    return kind


def _key(file: Path | None) -> str:
    text = os.environ.get(KEY_VARIABLE, "")
    if file is not None:
        try:
            with file.open("rb") as opened:
                text = opened.read(MAX_KEY_BYTES).decode("ascii", "replace")
        except OSError as error:
            raise ConfigError(f"the key cannot be read ({error.strerror}).", file=str(file)) from error
    if not text.strip():
        raise click.UsageError(
            f"there is no key; set {KEY_VARIABLE} or --key-file. There, `lobu token create --worker TYPE` makes one."
        )
    return text.strip()

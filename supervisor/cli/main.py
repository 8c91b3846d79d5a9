"""The `lobu` command: its table of subcommands, loaded only when used, and the one place where errors become sentences.

Exit codes: 0 done, 1 failed (a sentence on stderr says what to do), 2 wrong usage, 130 interrupted. A subcommand's
module has a click command named `command`; it is listed when its module exists.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from supervisor.init_process import leave_process_one
from supervisor.loading import loading

INTERRUPTED = 130

# Short texts stand here and not in the modules, so that `lobu --help` need not import them.
COMMANDS = {
    "run": "Run everything on this machine, in the foreground.",
    "init": "Write lobu.toml and .env for a new installation.",
    "chat": "Send a message and print the reply, or talk interactively.",
    "status": "Show hosts, conversations and turns.",
    "history": "Print a conversation's replies and errors.",
    "cancel": "Cancel what a conversation is doing.",
    "worker": "Run workers here for a gateway elsewhere.",
    "token": "Create, list and revoke API keys.",
    "migrate": "Bring the database's schema up to date.",
    "audit": "Check the invariants against the database and this host.",
    "drain": "Have a host finish its work and take no more.",
    "rollout": "Plan a deploy, and do it on this host.",
    "supervisor": "Run this host's supervisor alone.",
    "edge": "Run the HTTP edge alone.",
    "spawner": "Run the spawner alone.",
    "postgres": "Run the embedded database alone.",
    "systemd": "Install and remove the systemd units.",
    "bench": "Run the benchmarks.",
}

EXAMPLE = """\b
Example:
  lobu run
  lobu chat "Hello"
"""


class LazyGroup(click.Group):
    """Subcommands by name of their module in this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in COMMANDS if _module_file(name).exists()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS or not _module_file(cmd_name).exists():
            return None
        with loading():
            command = importlib.import_module(f"supervisor.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


def _module_file(name: str) -> Path:
    return Path(__file__).with_name(f"{name}.py")


@click.command(cls=LazyGroup, epilog=EXAMPLE, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lobu-actors", prog_name="lobu")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """An actor runtime for AI-agent conversations: every accepted message gets exactly one terminal event."""


def run_cli(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; gives its exit code. Errors are told on stderr in one sentence each."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result: Any = cli.main(args=words, prog_name="lobu", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        click.echo(f"lobu: {error.format_message()}", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except (Exception, BaseExceptionGroup) as error:
        if _is_broken_pipe(error):
            _silence(1)
            return 1
        if isinstance(error, BaseExceptionGroup) and error.subgroup(KeyboardInterrupt):
            return INTERRUPTED
        if "--debug" in words[:1] or not isinstance(error, Exception):
            raise
        from supervisor.cli.failures import sentences

        for sentence in sentences(error):
            click.echo(f"lobu: {sentence}", err=True)
        return 1
    return result if isinstance(result, int) else 0


def _is_broken_pipe(error: BaseException) -> bool:
    """Alone, or as what a nursery makes of it when what it writes about runs there."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return isinstance(error, BrokenPipeError)


def _silence(number: int) -> None:
    """Nobody takes that output; the interpreter must not complain about that when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def main() -> None:
    """The `lobu` program."""
    leave_process_one()
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed by who started us; no socket of ours may get its number
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "w" if number else "r"))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    code = run_cli()
    try:
        sys.stderr.flush()
    except OSError:
        _silence(2)
    sys.exit(code)


if __name__ == "__main__":
    main()

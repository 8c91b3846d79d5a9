"""`lobu init`: write lobu.toml and .env for a new installation. Overwrites nothing."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from supervisor.cli.options import example
from supervisor.config.environment import parse_env_text
from supervisor.config.load import CONFIG_NAME

ENV_NAME = ".env"

CONFIG_TEXT = """\
# Configuration of Lobu; `lobu run` refuses to start on what it does not know, naming the line.

[server]
host = "127.0.0.1"
port = 8787
# public_url = "https://lobu.example"   # how clients reach it, when that differs

[database]
{database}

[organization]
id = "local"

# A worker type: the only place where command lines come from. "python" is the interpreter that runs lobu.
[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
zygote = true
warm = 1

[[agents]]
id = "echo"
worker = "echo"
default = true
"""

ENV_TEXT = """\
# Secrets and what differs between machines; the real environment wins over this file. Keep it out of version control.
{database}
# LOBU_ADMIN_KEY=lobu_…                 # absent: the first `lobu run` makes one in .lobu/admin_key
# LOBU_JWT_KEYS=kid:secret,kid:secret   # absent: made once in .lobu/jwt_keys; the first one signs
# LOBU_LOG=json
# WORKER_ENV_OPENAI_API_KEY=sk-…        # workers see it as OPENAI_API_KEY
"""


@click.command("init", epilog=example("lobu init", "lobu init my-agents -y"))
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option("-y", "--yes", is_flag=True, help="Ask nothing: embedded Postgres.")
@click.option("--database-url", help="An external Postgres, postgres://…; asks nothing.")
def command(folder: Path, yes: bool, database_url: str | None) -> None:
    """Write lobu.toml and .env into DIR (default: here).

    Postgres is embedded (its data in .lobu/ beside the files) or one of yours (its URL goes into .env).
    """
    config, env = folder / CONFIG_NAME, folder / ENV_NAME
    taken = [str(path) for path in (config, env) if os.path.lexists(path)]
    if taken:
        raise click.ClickException(f"{' and '.join(taken)} exist already; move them away, or choose another folder.")
    if database_url is None and not yes:
        database_url = _ask()
    if database_url is not None:
        _check_url(database_url)
    folder.mkdir(parents=True, exist_ok=True)
    if database_url is None:
        config_text = CONFIG_TEXT.format(database='url = "file:."   # embedded, in .lobu/; DATABASE_URL wins')
        env_text = ENV_TEXT.format(database="# DATABASE_URL=postgres://user:password@host/database")
    else:
        config_text = CONFIG_TEXT.format(database="# The URL is DATABASE_URL in .env, since it may hold a password.")
        env_text = ENV_TEXT.format(database=f"DATABASE_URL='{database_url}'")
    _write(config, config_text, 0o644)
    _write(env, env_text, 0o600)
    there = "" if config.parent.samefile(".") else f"cd {shlex.quote(str(config.parent))} && "
    click.echo(f"Wrote {config} and {env}.")
    if database_url is not None:
        click.echo(f"Bring the database's schema up to date with:  {there}lobu migrate")
    click.echo(f"Start it with:  {there}lobu run")


def _ask() -> str | None:
    kind = click.prompt(
        "Postgres: embedded, or external (one that you run)?",
        type=click.Choice(["embedded", "external"]),
        default="embedded",
    )
    if kind == "embedded":
        return None
    return str(click.prompt("Its URL (postgres://user:password@host/database)")).strip()


def _check_url(url: str) -> None:
    if not url.startswith(("postgres://", "postgresql://")):
        raise click.ClickException("an external database's URL begins with postgres:// or postgresql://.")
    if "'" in url or "\n" in url or parse_env_text(f"X='{url}'", ENV_NAME)["X"] != url:
        raise click.ClickException("the URL holds a character that .env cannot; write it percent-encoded.")


def _write(path: Path, text: str, mode: int) -> None:
    """A new file or an error: what appeared meanwhile is somebody else's."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)

"""`lobu migrate`: bring the schema up to date, or say what is missing."""

from __future__ import annotations

from pathlib import Path

import click
import trio

from lobu_actors.store.migrate import migrate, pending
from supervisor.cli.database import load_for_database, open_database
from supervisor.cli.options import database_options, example, json_option, print_json
from supervisor.config.settings import Settings


@click.command("migrate", epilog=example("lobu migrate", "lobu migrate --check"))
@click.option("--check", is_flag=True, help="Apply nothing; exit 1 when something is missing.")
@json_option
@database_options
def command(check: bool, as_json: bool, config: Path | None, data_dir: Path | None, database_url: str | None) -> int:
    """Apply the migrations that the database lacks, all or none of them.

    `lobu run` does this by itself on the embedded database. On an external one run it before new hosts start; hosts of
    the release before go on working meanwhile.
    """
    names = trio.run(_migrate, load_for_database(config, data_dir, database_url), check)
    if as_json:
        print_json({"pending" if check else "applied": names})
    elif not names:
        click.echo("The schema is up to date.")
    else:
        for name in names:
            click.echo(f"{'missing' if check else 'applied'}: {name}")
        if check:
            click.echo("lobu: the schema is not up to date; run `lobu migrate`.", err=True)
    return 1 if check and names else 0


async def _migrate(settings: Settings, check: bool) -> list[str]:
    async with open_database(settings, create=not check) as url:
        return await (pending(url) if check else migrate(url))

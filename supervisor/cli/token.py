"""`lobu token`: API keys of the organization. Only their hashes are stored, so a key is shown once."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
import trio

from lobu_actors.contract.ids import is_id
from lobu_actors.contract.states import Role
from lobu_actors.store.protocol import TenantStore
from lobu_actors.store.records import ApiKey
from supervisor.cli.database import load_for_database, open_store
from supervisor.cli.options import database_options, example, json_option, print_json
from supervisor.config.keys import new_api_key
from supervisor.config.settings import Settings

SHOWN_HASH_CHARACTERS = 12
MIN_PREFIX_CHARACTERS = 6

_Result = TypeVar("_Result")


@click.group("token", epilog=example("lobu token create --user alice --label laptop"))
def command() -> None:
    """Create, list and revoke API keys of this folder's organization."""


@command.command("create", epilog=example("lobu token create --user alice --expires-days 90"))
@click.option("--user", help="The user that the key acts for.  [default: admin]")
@click.option("--role", type=click.Choice(["admin", "user"]), help="What that user may do.  [default: user]")
@click.option("--worker", "worker_type", help="For a remote worker of this type, in place of --user and --role.")
@click.option("--label", default="", help="A note to tell keys apart.")
@click.option("--expires-days", type=click.FloatRange(min=0, min_open=True, max=36_500), help="Default: never.")
@json_option
@database_options
def create(
    user: str | None,
    role: str | None,
    worker_type: str | None,
    label: str,
    expires_days: float | None,
    as_json: bool,
    config: Path | None,
    data_dir: Path | None,
    database_url: str | None,
) -> None:
    """Make a key and print it, once: afterwards nobody can tell it, only revoke it."""
    if worker_type is not None and (user is not None or role is not None):
        raise click.UsageError("A key for a remote worker is nobody's: give --worker without --user and --role.")
    if worker_type is None:
        name, chosen, option = "admin" if user is None else user, Role(role or Role.USER), "--user"
    else:
        name, chosen, option = worker_type, Role.WORKER, "--worker"
    if not is_id(name):
        raise click.BadParameter("use letters, digits and `. _ : @ + -`, at most 128", param_hint=option)
    settings = load_for_database(config, data_dir, database_url)
    key = new_api_key()
    expires_at = None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days)
    record = ApiKey(
        key_hash=hashlib.sha256(key.encode()).hexdigest(),
        organization_id=settings.organization_id,
        user_id=name,
        role=chosen,
        label=label,
        expires_at=expires_at,
    )

    async def store_it(store: TenantStore) -> None:
        await store.ensure_organization(settings.organization_id)
        await store.put_api_key(record)

    _with_store(settings, store_it)
    if as_json:
        print_json({"key": key, **_shown(record)})
    else:
        click.echo(key)
        click.echo("Keep it now: it is stored as a hash and cannot be shown again.", err=True)


@command.command("list", epilog=example("lobu token list --json"))
@json_option
@database_options
def list_keys(as_json: bool, config: Path | None, data_dir: Path | None, database_url: str | None) -> None:
    """List the keys, by the beginning of their hashes."""
    settings = load_for_database(config, data_dir, database_url)
    keys = _with_store(settings, lambda store: store.list_api_keys(settings.organization_id))
    if as_json:
        print_json([_shown(key) for key in keys])
        return
    for key in keys:
        state = "revoked" if key.revoked_at else f"until {key.expires_at:%Y-%m-%d}" if key.expires_at else "valid"
        hash_shown = key.key_hash[:SHOWN_HASH_CHARACTERS]
        click.echo(f"{hash_shown}  {key.role.value:<6}  {key.user_id:<20}  {state:<16}  {key.label}".rstrip())


@command.command("revoke", epilog=example("lobu token revoke 3fa94b21c0de"))
@click.argument("prefix")
@database_options
def revoke(prefix: str, config: Path | None, data_dir: Path | None, database_url: str | None) -> None:
    """Revoke the key whose hash begins with PREFIX, as `lobu token list` shows it."""
    prefix = prefix.lower()
    if len(prefix) < MIN_PREFIX_CHARACTERS or not set(prefix) <= set("0123456789abcdef"):
        raise click.BadParameter(f"give at least {MIN_PREFIX_CHARACTERS} characters as `lobu token list` shows them")
    settings = load_for_database(config, data_dir, database_url)
    count = _with_store(settings, lambda store: store.revoke_api_key(settings.organization_id, prefix))
    if count < 0:
        raise click.ClickException(f"more than one key begins with {prefix}; give more of it.")
    if count == 0:
        raise click.ClickException(f"no key begins with {prefix}; `lobu token list` shows them.")
    click.echo("Revoked. Servers may believe the key for a few more seconds.")


def _with_store(settings: Settings, call: Callable[[TenantStore], Awaitable[_Result]]) -> _Result:
    async def run() -> _Result:
        async with open_store(settings) as store:
            return await call(store)

    return trio.run(run)


def _shown(key: ApiKey) -> dict[str, Any]:
    def instant(value: datetime | None) -> str | None:
        return None if value is None else value.isoformat()

    return {
        "hash": key.key_hash,
        "organizationId": key.organization_id,
        "userId": key.user_id,
        "role": key.role.value,
        "label": key.label,
        "createdAt": instant(key.created_at),
        "expiresAt": instant(key.expires_at),
        "revokedAt": instant(key.revoked_at),
    }

"""`lobu drain`: have a host finish what runs, hand the rest over, and end. Asked for through the database, so on any
machine; the host learns of it at its next renewal and then does what SIGTERM has it do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
import trio

from lobu_actors.contract.states import HostState
from lobu_actors.store.database_url import EmbeddedDatabase, parse_database_url
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.protocol import HostStore
from lobu_actors.store.records import Host
from supervisor.cli.database import load_for_database, open_store
from supervisor.cli.options import database_options, example, json_option, print_json
from supervisor.config.errors import ConfigError
from supervisor.config.keys import read_small_file
from supervisor.config.settings import Settings
from supervisor.membership import HOST_ID_FILE
from supervisor.rollout import SHOWN_ID
from supervisor.state_lock import until_unlocked

LOOK_SECONDS = 0.25
BEYOND_GRACE_SECONDS = 30.0


class Drained(msgspec.Struct, frozen=True):
    """How far it came. `host` as it was seen last."""

    host: Host
    gone: bool


@click.command(
    "drain", epilog=example("lobu drain", "lobu drain web-2 --wait", "lobu drain 0190f3 --wait --timeout 120")
)
@click.argument("host", required=False)
@click.option("--wait", is_flag=True, help="Until the host is gone; exit 1 when it is not in time.")
@click.option("--timeout", type=click.FloatRange(0.1), help="Seconds for --wait; default: the grace and half a minute.")
@json_option
@database_options
def command(
    host: str | None,
    wait: bool,
    timeout: float | None,
    as_json: bool,
    config: Path | None,
    data_dir: Path | None,
    database_url: str | None,
) -> int:
    """Have HOST take no more work, finish what runs within its grace, hand the rest to other hosts, and end.

    HOST is a name or the beginning of an id, as `lobu status` shows them; without it, the host of this folder. Its
    process ends with exit code 0, so that a service manager which restarts on failure leaves it stopped.
    """
    settings = load_for_database(config, data_dir, database_url)
    grace = settings.limits.drain_grace_seconds
    seconds = grace + BEYOND_GRACE_SECONDS if timeout is None else timeout
    drained = trio.run(_drain, settings, host, seconds if wait else None, not as_json)
    if as_json:
        print_json(_as_json(drained))
    elif drained.gone:
        click.echo(f"{label(drained.host)} is gone.")
    elif not wait:
        click.echo(f"Asked {label(drained.host)} to drain; it has {grace:g} s for what runs, and then ends.")
    if wait and not drained.gone:
        click.echo(
            f"lobu: {label(drained.host)} is not gone after {seconds:g} s: {what_is_left(drained.host)}.", err=True
        )
        return 1
    return 0


def find_host(hosts: Sequence[Host], given: str | None, of_folder: str | None) -> Host:
    """The live host that is meant: by name, by the beginning of its id, or this folder's. Raises ConfigError."""
    live = [host for host in hosts if is_alive(host)]
    names = ", ".join(label(host) for host in live) or "none"
    if given is None:
        found = [host for host in live if host.host_id == of_folder]
        if not found:
            raise ConfigError(f"no live host runs in this folder; name one, live are: {names}.")
        return found[0]
    found = [host for host in live if host.name == given or host.host_id.startswith(given)]
    if not found:
        raise ConfigError(f"no live host is called {given}; live are: {names}.")
    if len(found) > 1:
        raise ConfigError(f"{given} may be {', '.join(label(host) for host in found)}; name one by its id.")
    return found[0]


def is_alive(host: Host) -> bool:
    return host.state is not HostState.DEAD and host.expires_in_seconds > 0


def label(host: Host) -> str:
    return f"{host.name} ({host.host_id[:SHOWN_ID]})"


def what_is_left(host: Host) -> str:
    return f"{host.running} running, {host.queued} queued, {host.leases} conversations held"


async def _drain(settings: Settings, given: str | None, wait_seconds: float | None, tell: bool) -> Drained:
    of_folder = read_small_file(settings.state_dir / HOST_ID_FILE)
    async with open_store(settings) as store:
        host = find_host(await store.list_hosts(), given, of_folder)
        await store.drain_host(host.host_id)
        drained = Drained(host, gone=False)
        if wait_seconds is not None:
            with trio.move_on_after(wait_seconds):
                drained = await _until_gone(settings, store, host, host.host_id == of_folder, tell)
        return drained


async def _until_gone(settings: Settings, store: HostStore, host: Host, is_ours: bool, tell: bool) -> Drained:
    """Its goodbye, or the end of its lease; if it is this folder's, the end of its process too."""
    told = ""
    while (seen := await _look(settings, store, host)) is not None and is_alive(seen):
        host = seen
        if tell and (left := what_is_left(host)) != told:
            click.echo(f"{label(host)}: {left}", err=True)
            told = left
        await trio.sleep(LOOK_SECONDS)
    if is_ours:
        await until_unlocked(settings.state_dir)
    return Drained(seen or host, gone=True)


async def _look(settings: Settings, store: HostStore, host: Host) -> Host | None:
    """None: it is known no more, or its database went with it."""
    try:
        hosts = await store.list_hosts()
    except StoreUnavailable:
        if isinstance(parse_database_url(settings.database.url, settings.data_dir), EmbeddedDatabase):
            return None
        return host
    return next((other for other in hosts if other.host_id == host.host_id), None)


def _as_json(drained: Drained) -> dict[str, object]:
    host = drained.host
    return {
        "hostId": host.host_id,
        "name": host.name,
        "gone": drained.gone,
        "running": host.running,
        "queued": host.queued,
        "leases": host.leases,
    }

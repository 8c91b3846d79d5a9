"""`lobu status`: hosts and counts from the shared database, and whether this folder's server takes work."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import click
import msgspec
import trio
from msgspec.structs import asdict

from lobu_actors.client import Client, ClientError
from lobu_actors.contract.states import HostState
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.protocol import Store
from lobu_actors.store.records import Host
from supervisor.cli.database import load_for_database, open_store
from supervisor.cli.inside import look_inside
from supervisor.cli.options import database_options, example, gateway_option, json_option, print_json
from supervisor.cli.screen import Screen, is_screen, screen
from supervisor.cli.status_view import Section, Status, fitted, flat, lag_ms, sections
from supervisor.config.gateway import GatewayPlace, find_gateway
from supervisor.config.settings import Settings

WATCH_SECONDS = 2.0
GATEWAY_SECONDS = 3.0
SHOWN_CONVERSATIONS = 10
SHOWN_OWED = 100
SHOWN_GONE_SECONDS = 600.0  # how long a host is shown that went without a goodbye


class _Asked(msgspec.Struct, frozen=True):
    """What is to be shown; `gateway` None: this folder's server."""

    settings: Settings
    gateway: str | None
    everything: bool


@click.command("status", epilog=example("lobu status", "lobu status --watch"))
@click.option("--watch", is_flag=True, help="Again every two seconds, until q or Ctrl-C.")
@click.option("--all", "everything", is_flag=True, help="Hosts that are gone and hold nothing, too.")
@json_option
@gateway_option
@database_options
def command(
    watch: bool,
    everything: bool,
    as_json: bool,
    gateway: str | None,
    config: Path | None,
    data_dir: Path | None,
    database_url: str | None,
) -> None:
    """Show hosts, conversations, queued and running turns, and what is inside.

    Of each host: how long its lease lasts; how many conversations it holds, and how often these were taken over by any
    host, added up; the turns that run there or wait in what it holds; since when it is up; how many of its links to the
    other hosts are up; where others link to it. Below, the links one by one, worst first, with how long a heartbeat
    took there and back: all as the hosts wrote it when they last renewed their leases. Then the oldest turns that are
    owed an end.

    What the server tells of its hosts from inside, to an administrator's key: what running turns do, and which clock
    would end each one next; their trees, workers (a remote one with its machine, idle places of them counted), and
    actors with the messages that wait for them. Of turns, workers and actors the fifty that matter most.
    """
    asked = _Asked(load_for_database(config, data_dir, database_url), gateway, everything)
    if not watch:
        _print(trio.run(_once, asked), as_json)
    elif as_json or not is_screen():
        trio.run(_again_and_again, asked, as_json)
    else:
        trio.run(_on_screen, asked)


async def _once(asked: _Asked) -> Status:
    async with open_store(asked.settings) as store:
        return await _read(asked, store)


async def _again_and_again(asked: _Asked, as_json: bool) -> None:
    """For a pipe: one after the other, with an empty line in between, until a signal or until nobody reads it."""
    unheard: list[BrokenPipeError] = []
    async with open_store(asked.settings) as store, trio.open_nursery() as nursery:
        await nursery.start(_until_interrupted, nursery.cancel_scope)
        nursery.start_soon(_keep_printing, asked, store, as_json, unheard, nursery.cancel_scope)
    for error in unheard:
        raise error


async def _keep_printing(
    asked: _Asked,
    store: Store,
    as_json: bool,
    unheard: list[BrokenPipeError],
    scope: trio.CancelScope,
) -> None:
    between = ""
    while True:
        try:
            status = await _read(asked, store)
            click.echo(between, nl=False)
            _print(status, as_json)
            between = "" if as_json else "\n"
        except StoreUnavailable as error:
            click.echo(f"the database is away: {error}", err=True)
        except BrokenPipeError as error:
            unheard.append(error)
            scope.cancel()
        await trio.sleep(WATCH_SECONDS)


async def _until_interrupted(scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()
            return


async def _on_screen(asked: _Asked) -> None:
    async with open_store(asked.settings) as store:
        # Read once before the screen is taken: what cannot be read at all is said where it can be read.
        shown = sections(await _read(asked, store))
        async with screen() as terminal, trio.open_nursery() as nursery:
            await nursery.start(terminal.watch, nursery.cancel_scope.cancel)
            while True:
                await _shown_for_a_while(terminal, shown)
                try:
                    shown = sections(await _read(asked, store))
                except StoreUnavailable as error:
                    away = Section("", [f"the database is away: {error}"], must=True)
                    shown = [away, *(one for one in shown if one.title)]


async def _shown_for_a_while(terminal: Screen, shown: list[Section]) -> None:
    """Drawn at once, and again whenever the terminal's size changes."""
    with trio.move_on_after(WATCH_SECONDS):
        while True:
            changed = terminal.changed
            terminal.draw(fitted(shown, *terminal.size))
            await changed.wait()


def _print(status: Status, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(status))
    else:
        click.echo("\n".join(flat(sections(status))))


async def _read(asked: _Asked, store: Store) -> Status:
    place = find_gateway(asked.gateway, asked.settings.data_dir)
    organization_id = asked.settings.organization_id
    hosts = await store.list_hosts()
    shown = [host for host in hosts if asked.everything or _matters(host)]
    gateway, house = await _gateway(place)
    return Status(
        hosts=shown,
        gone=len(hosts) - len(shown),
        totals=await store.totals(organization_id),
        conversations=await store.list_conversations(organization_id, limit=SHOWN_CONVERSATIONS),
        owed=await store.list_owed(organization_id, limit=SHOWN_OWED),
        gateway_url=place.url,
        gateway=gateway,
        house=house,
    )


def _matters(host: Host) -> bool:
    if host.leases or host.running:
        return True
    return host.state is not HostState.DEAD and host.expires_in_seconds > -SHOWN_GONE_SECONDS


async def _gateway(place: GatewayPlace) -> tuple[str, dict[str, Any] | None]:
    """Whether it takes work, and what it tells from inside."""
    state, house = "away", None
    with trio.move_on_after(GATEWAY_SECONDS):
        try:
            async with Client(place.url) as client:
                state = "ready" if await client.ready() else "not ready"
        except ClientError:
            return "away", None
        house = await look_inside(place)
    return state, house


def _as_json(status: Status) -> dict[str, Any]:
    return {
        "gateway": {"url": status.gateway_url, "state": status.gateway},
        "hosts": [
            {
                "hostId": host.host_id,
                "name": host.name,
                "state": host.state.value,
                "version": host.version,
                "linkUrl": host.link_url,
                "expiresInSeconds": round(host.expires_in_seconds, 3),
                "leases": host.leases,
                "epochs": host.epochs,
                "queued": host.queued,
                "running": host.running,
                "upSeconds": round(host.age_seconds, 3),
                "links": {
                    "up": host.links.up,
                    "down": host.links.down,
                    "worst": [
                        {"hostId": link.host_id, "up": link.up, "lagMs": lag_ms(link)} for link in host.links.worst
                    ],
                },
            }
            for host in status.hosts
        ],
        "hostsGone": status.gone,
        "totals": asdict(status.totals),
        "owed": [
            {
                "key": turn.conversation_id,
                "turnId": turn.turn_id,
                "messageId": turn.message_id,
                "attempt": turn.attempt,
                "hostId": turn.host_id,
                "ageSeconds": round(turn.age_seconds, 3),
            }
            for turn in status.owed
        ],
        "conversations": [
            {
                "key": conversation.ref.conversation_id,
                "queued": conversation.queued,
                "running": conversation.running,
                "lastActivityAt": conversation.last_activity_at.isoformat(),
            }
            for conversation in status.conversations
        ],
    } | ({} if status.house is None else {"inside": status.house.get("hosts", [])})

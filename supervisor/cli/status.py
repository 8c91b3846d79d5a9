"""`lobu status`: hosts and counts from the shared database, and whether this folder's server takes work."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import click
import trio

from lobu_actors.client import Client, ClientError
from lobu_actors.contract.states import HostState
from lobu_actors.store.link_records import PeerLink
from lobu_actors.store.protocol import Store
from lobu_actors.store.records import Conversation, Host, Totals
from supervisor.cli.database import load_for_database, open_store
from supervisor.cli.options import database_options, example, json_option, print_json
from supervisor.cli.table import aligned
from supervisor.config.gateway import find_gateway
from supervisor.config.settings import Settings
from supervisor.rollout import SHOWN_ID

WATCH_SECONDS = 2.0
GATEWAY_SECONDS = 3.0
SHOWN_CONVERSATIONS = 10
SHOWN_GONE_SECONDS = 600.0  # how long a host is shown that went without a goodbye
SHOWN_LINKS = 20
_HEAD = ("NAME", "ID", "STATE", "LEASE", "HOLDS", "TAKEN", "RUNNING", "QUEUED", "UP", "VERSION", "LINKS", "LINK")
_NUMBERS = frozenset({4, 5, 6, 7})
_LINKS_HEAD = ("FROM", "TO", "LINK", "LAG")


@attrs.frozen
class Status:
    hosts: list[Host]
    gone: int  # hosts that are not among them, since they are gone and hold nothing
    totals: Totals
    conversations: list[Conversation]  # the newest ones
    gateway_url: str
    gateway: str  # ready, not ready, away


@click.command("status", epilog=example("lobu status", "lobu status --watch"))
@click.option("--watch", is_flag=True, help="Again every two seconds, until Ctrl-C.")
@click.option("--all", "everything", is_flag=True, help="Hosts that are gone and hold nothing, too.")
@json_option
@database_options
def command(
    watch: bool, everything: bool, as_json: bool, config: Path | None, data_dir: Path | None, database_url: str | None
) -> None:
    """Show hosts, conversations, queued and running turns.

    Of each host: how long its lease lasts; how many conversations it holds, and how often these were taken over by any
    host, added up; the turns that run there or wait in what it holds; since when it is up; how many of its links to the
    other hosts are up; where others link to it. Below, the links one by one, worst first, with how long a heartbeat
    took there and back: all as the hosts wrote it when they last renewed their leases.
    """
    settings = load_for_database(config, data_dir, database_url)

    def show(status: Status) -> None:
        if as_json:
            print_json(_as_json(status))
            return
        if watch:
            click.clear()
        click.echo("\n".join(_lines(status)))

    trio.run(_status, settings, show, watch, everything)


async def _status(settings: Settings, show: Any, watch: bool, everything: bool) -> None:
    async with open_store(settings) as store:
        while True:
            show(await _read(settings, store, everything))
            if not watch:
                return
            await trio.sleep(WATCH_SECONDS)


async def _read(settings: Settings, store: Store, everything: bool) -> Status:
    url = find_gateway(None, settings.data_dir).url
    hosts = await store.list_hosts()
    shown = [host for host in hosts if everything or _matters(host)]
    return Status(
        hosts=shown,
        gone=len(hosts) - len(shown),
        totals=await store.totals(settings.organization_id),
        conversations=await store.list_conversations(settings.organization_id, limit=SHOWN_CONVERSATIONS),
        gateway_url=url,
        gateway=await _gateway(url),
    )


def _matters(host: Host) -> bool:
    if host.leases or host.running:
        return True
    return host.state is not HostState.DEAD and host.expires_in_seconds > -SHOWN_GONE_SECONDS


async def _gateway(url: str) -> str:
    with trio.move_on_after(GATEWAY_SECONDS):
        try:
            async with Client(url) as client:
                return "ready" if await client.ready() else "not ready"
        except ClientError:
            pass
    return "away"


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
                        {"hostId": link.host_id, "up": link.up, "lagMs": _lag_ms(link)} for link in host.links.worst
                    ],
                },
            }
            for host in status.hosts
        ],
        "hostsGone": status.gone,
        "totals": attrs.asdict(status.totals),
        "conversations": [
            {
                "key": conversation.ref.conversation_id,
                "queued": conversation.queued,
                "running": conversation.running,
                "lastActivityAt": conversation.last_activity_at.isoformat(),
            }
            for conversation in status.conversations
        ],
    }


def _lines(status: Status) -> list[str]:
    totals = status.totals
    oldest = "" if totals.oldest_owed_seconds is None else f", oldest owed for {totals.oldest_owed_seconds:.1f} s"
    lines = [
        f"gateway        {status.gateway_url}  {status.gateway}",
        f"conversations  {totals.conversations}",
        f"turns          {totals.running} running, {totals.queued} queued{oldest}",
        f"hosts          {len(status.hosts)}{f', and {status.gone} that are gone' if status.gone else ''}",
    ]
    if status.hosts:
        lines += aligned([_HEAD, *map(_row, status.hosts)], right=_NUMBERS)
    if links := _links(status.hosts):
        lines += ["links", *aligned([_LINKS_HEAD, *links[:SHOWN_LINKS]], right=frozenset({3}))]
    return lines + aligned(
        [
            (one.ref.conversation_id, str(one.running), "running", str(one.queued), "queued")
            for one in status.conversations
        ],
        right=frozenset({1, 3}),
    )


def _row(host: Host) -> tuple[str, ...]:
    return (
        host.name,
        host.host_id[:SHOWN_ID],
        host.state.value,
        f"{host.expires_in_seconds:.1f} s" if host.expires_in_seconds > 0 else "expired",
        str(host.leases),
        str(host.epochs - host.leases),
        str(host.running),
        str(host.queued),
        str(timedelta(seconds=round(host.age_seconds))),
        host.version,
        f"{host.links.up}/{host.links.up + host.links.down}",
        host.link_url or "-",
    )


def _links(hosts: list[Host]) -> list[tuple[str, ...]]:
    """Of those that live: what a dead one wrote last says nothing."""
    live = [host for host in hosts if host.state is not HostState.DEAD and host.expires_in_seconds > 0]
    found = [(host, link) for host in live for link in host.links.worst]
    found.sort(key=lambda pair: (pair[1].up, -(pair[1].lag_seconds or 0)))
    return [
        (
            host.host_id[:SHOWN_ID],
            link.host_id[:SHOWN_ID],
            "up" if link.up else "down",
            "-" if link.lag_seconds is None else f"{_lag_ms(link):.1f} ms",
        )
        for host, link in found
    ]


def _lag_ms(link: PeerLink) -> float | None:
    return None if link.lag_seconds is None else round(link.lag_seconds * 1e3, 1)

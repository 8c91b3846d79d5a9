"""`lobu history`: what a conversation's event log says about its ended turns, or when these did what."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import click
import trio

from lobu_actors.contract.events import TERMINAL_EVENTS, EventType
from lobu_actors.store.protocol import Store
from lobu_actors.store.records import Conversation, Event
from supervisor.cli import turn_times
from supervisor.cli.database import load_for_database, open_store
from supervisor.cli.options import (
    database_options,
    example,
    gateway_option,
    json_option,
    print_json,
    safe_for_terminal,
)
from supervisor.config.gateway import find_gateway
from supervisor.config.settings import Settings

PAGE_EVENTS = 500
T = TypeVar("T")


_KEY = "echo_admin_local"


@click.command("history", epilog=example(f"lobu history {_KEY}", f"lobu history {_KEY} --timeline --limit 3"))
@click.argument("key")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="The newest so many.")
@click.option("--timeline", is_flag=True, help="When each of them did what, instead of the replies.")
@json_option
@gateway_option
@database_options
def command(
    key: str,
    limit: int,
    timeline: bool,
    as_json: bool,
    gateway: str | None,
    config: Path | None,
    data_dir: Path | None,
    database_url: str | None,
) -> None:
    """Print the replies and errors of conversation KEY, oldest first.

    With --timeline: when each turn, those without an end too, was accepted, begun, answered, committed and delivered,
    in milliseconds from its acceptance and from the line before. Deliveries are known to the server that made them, for
    its newest turns.
    """
    settings = load_for_database(config, data_dir, database_url)
    if timeline:
        found = _there(key, trio.run(_timelines, settings, gateway, key, limit))
        if as_json:
            print_json({"key": key, "turns": turn_times.as_json(found)})
        else:
            click.echo("\n".join(turn_times.lines(found)))
        return
    events = _there(key, trio.run(_events, settings, key, limit))
    if as_json:
        shown = [{"seq": event.seq, "type": event.type.value, "data": event.data} for event in events]
        print_json({"key": key, "events": shown})
        return
    for event in events:
        click.echo(safe_for_terminal(_line(event)))


def _there(key: str, found: list[T] | None) -> list[T]:
    if found is None:
        raise click.ClickException(f"there is no conversation {key!r} here; `lobu status` lists the newest ones.")
    return found


async def _events(settings: Settings, key: str, limit: int) -> list[Event] | None:
    """The newest `limit` terminal events; None when there is no such conversation."""
    async with open_store(settings) as store:
        conversation = await store.find_conversation(settings.organization_id, key)
        return None if conversation is None else await _ends(store, conversation, limit)


async def _timelines(settings: Settings, gateway: str | None, key: str, limit: int) -> list[turn_times.Found] | None:
    """Those of the same turns, and of those that are owed an end."""
    async with open_store(settings) as store:
        conversation = await store.find_conversation(settings.organization_id, key)
        if conversation is None:
            return None
        ended = [event.turn_id for event in await _ends(store, conversation, limit) if event.turn_id is not None]
        owed = [turn.turn_id for turn in await store.list_owed_turns(conversation.ref, limit=limit)]
        turn_ids = list(dict.fromkeys([*ended, *owed]))[-limit:]
        place = find_gateway(gateway, settings.data_dir)
        return await turn_times.timelines_of(store, conversation.ref, turn_ids, place)


async def _ends(store: Store, conversation: Conversation, limit: int) -> list[Event]:
    found: list[Event] = []
    from_seq = 1
    while from_seq <= conversation.last_seq:
        page = await store.read_events(conversation.ref, from_seq, limit=PAGE_EVENTS)
        if not page:
            break
        found = [*found, *(event for event in page if event.type in TERMINAL_EVENTS)][-limit:]
        from_seq = page[-1].seq + 1
    return found


def _line(event: Event) -> str:
    message = event.data.get("messageId", "?")
    match event.type:
        case EventType.COMPLETE:
            return f"[{event.seq}] {message}: {event.data.get('finalText', '')}"
        case EventType.CANCELLED:
            return f"[{event.seq}] {message}: (cancelled) {event.data.get('finalText', '')}".rstrip()
        case _:
            return f"[{event.seq}] {message}: ({event.data.get('errorCode', '?')}) {event.data.get('error', '')}"

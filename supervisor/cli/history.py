"""`lobu history`: what a conversation's event log says about its ended turns."""

from __future__ import annotations

from pathlib import Path

import click
import trio

from lobu_actors.contract.events import TERMINAL_EVENTS, EventType
from lobu_actors.store.records import Event
from supervisor.cli.database import load_for_database, open_store
from supervisor.cli.options import database_options, example, json_option, print_json, safe_for_terminal
from supervisor.config.settings import Settings

PAGE_EVENTS = 500


@click.command("history", epilog=example("lobu history echo_admin_local", "lobu history echo_admin_local --json"))
@click.argument("key")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="The newest so many.")
@json_option
@database_options
def command(
    key: str, limit: int, as_json: bool, config: Path | None, data_dir: Path | None, database_url: str | None
) -> None:
    """Print the replies and errors of conversation KEY, oldest first."""
    events = trio.run(_ends, load_for_database(config, data_dir, database_url), key, limit)
    if events is None:
        raise click.ClickException(f"there is no conversation {key!r} here; `lobu status` lists the newest ones.")
    if as_json:
        shown = [{"seq": event.seq, "type": event.type.value, "data": event.data} for event in events]
        print_json({"key": key, "events": shown})
        return
    for event in events:
        click.echo(safe_for_terminal(_line(event)))


async def _ends(settings: Settings, key: str, limit: int) -> list[Event] | None:
    """The newest `limit` terminal events; None when there is no such conversation."""
    async with open_store(settings) as store:
        conversation = await store.find_conversation(settings.organization_id, key)
        if conversation is None:
            return None
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

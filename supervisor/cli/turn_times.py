"""The timelines of a conversation's newest turns, for `lobu history --timeline`: from the database, and, as far as this
folder's server is there to be asked, when it gave the ends to its streams."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import trio

from lobu_actors.client.http import new_http
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.timeline import Entry, Moment
from lobu_actors.store.protocol import Store
from lobu_actors.store.timeline import timeline
from lobu_actors.store.timeline_protocol import TurnHistory
from supervisor.cli.options import safe_for_terminal
from supervisor.cli.table import aligned
from supervisor.config.gateway import GatewayPlace

ASK_SECONDS = 2.0  # for all of them together
Found = tuple[TurnHistory, list[Entry]]


async def timelines_of(store: Store, ref: ConversationRef, turn_ids: list[str], place: GatewayPlace) -> list[Found]:
    histories = [
        history for turn_id in turn_ids if (history := await store.read_turn_history(ref, turn_id)) is not None
    ]
    delivered = await _deliveries(ref, histories, place)
    return [(history, timeline(history, delivered.get(history.turn_id))) for history in histories]


def as_json(found: list[Found]) -> list[dict[str, Any]]:
    return [
        {
            "turnId": history.turn_id,
            "messageId": history.message_id,
            "entries": [entry.to_json() for entry in entries],
        }
        for history, entries in found
    ]


def lines(found: list[Found]) -> list[str]:
    """A heading and a table for each turn: since the acceptance, since the entry before, what."""
    shown: list[str] = []
    for history, entries in found:
        shown.append(f"{safe_for_terminal(history.message_id)}  turn {history.turn_id}  {history.status.value}")
        before = 0.0
        rows: list[tuple[str, ...]] = []
        for entry in entries:
            step = entry.since_start_ms - before
            before = entry.since_start_ms
            detail = "" if entry.detail is None else safe_for_terminal(entry.detail)
            rows.append((f"{entry.since_start_ms:.1f} ms", f"+{step:.1f}", entry.name.value, detail))
        shown += aligned(rows, right=frozenset({0, 1}))
    return shown


async def _deliveries(
    ref: ConversationRef, histories: list[TurnHistory], place: GatewayPlace
) -> dict[str, tuple[float, int]]:
    """By turn. Whatever keeps the server from answering leaves the rest out: the timeline is whole without it."""
    found: dict[str, tuple[float, int]] = {}
    with trio.move_on_after(ASK_SECONDS):
        try:
            async with new_http(place.url, place.key) as http:
                for history in histories:
                    path = f"/api/v1/agents/{quote(ref.conversation_id, safe='')}/turns/{history.turn_id}/timeline"
                    answer = await http.get(path)
                    if answer.status_code != httpx.codes.OK:
                        continue
                    for entry in answer.json()["entries"]:
                        if entry["name"] == Moment.DELIVERED.value:
                            found[history.turn_id] = (entry["at"], int(entry["detail"].split()[0]))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
            pass
    return found

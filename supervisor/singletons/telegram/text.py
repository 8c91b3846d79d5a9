"""What a reply looks like in a chat: cut into messages as the Bot API counts them. Pure.

A message has at most 4096 characters, counted in UTF-16 code units; blanks at its ends are not shown, and one of blanks
alone is refused.
"""

from __future__ import annotations

from lobu_actors.contract.events import Data, EventType

MAX_UNITS = 4096
MAX_PARTS = 25  # a chat takes about one message a second
CUT = "\n\n[The rest of this reply was cut.]"
EMPTY = "(The reply is empty.)"
STOPPED = "Stopped."


def utf16_units(text: str) -> int:
    return len(text) + sum(character > "\uffff" for character in text)


def split(text: str) -> list[str]:
    """Messages that one after another are the text: cut behind a line end where there is one in a message's second
    half, else behind a blank, else anywhere but within a character. At least one, at most MAX_PARTS, the last of which
    then says that it was cut."""
    parts: list[str] = []
    rest = text
    while rest.strip() and len(parts) < MAX_PARTS:
        part = _head(rest, MAX_UNITS)
        rest = rest[len(part) :]
        if part.strip():
            parts.append(part)
    if rest.strip():
        parts[-1] = _head(parts[-1], MAX_UNITS - len(CUT)).rstrip() + CUT
    return parts or [EMPTY]


def _head(text: str, room: int) -> str:
    units, end = 0, 0
    for character in text[:room]:
        units += 2 if character > "\uffff" else 1
        if units > room:
            break
        end += 1
    if end == len(text):
        return text
    for blank in ("\n", " "):
        at = text.rfind(blank, end // 2, end)
        if at >= 0:
            return text[: at + 1]
    return text[:end]


def told(event_type: EventType, data: Data) -> str:
    """What a terminal event says to a person."""
    if event_type is EventType.AGENT_ERROR:
        return f"{data.get('error') or 'The message could not be answered.'} ({data.get('errorCode')})"
    text = str(data.get("finalText") or "")
    if event_type is EventType.CANCELLED:
        return f"{text}\n\n{STOPPED}" if text.strip() else STOPPED
    return text

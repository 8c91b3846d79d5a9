"""What an agent that is a program of its own is told around a message: it takes one text, and nothing beside it. Pure.

Owns the words for what was said before it came, and for the client's instructions.
"""

from collections.abc import Iterable
from typing import Any

from lobu_actors.contract.session_file import text_of

Json = dict[str, Any]
MAX_TRANSCRIPT_CHARS = 200_000
_TITLES = {"user": "User", "assistant": "You", "tool": "Result", "toolResult": "Result"}


def briefed(content: str, *, history: Iterable[Json] = (), summary: str | None = None, instructions: str = "") -> str:
    """The message, and before it what the agent does not know; the newest of what was said if that is long."""
    parts = []
    if said := _transcript(history, summary):
        parts.append(f"This conversation goes on. What was said in it before:\n\n{said}")
    if instructions:
        parts.append(f"What you are asked to observe from here on:\n\n{instructions}")
    return "\n\n".join([*parts, f"The new message:\n\n{content}"]) if parts else content


def _transcript(history: Iterable[Json], summary: str | None) -> str:
    lines = [summary] if summary else []
    for message in history:
        title, text = _TITLES.get(str(message.get("role"))), text_of(message.get("content")).strip()
        if title and text:
            lines.append(f"{title}: {text}")
    said = "\n\n".join(lines)
    return said if len(said) <= MAX_TRANSCRIPT_CHARS else f"[…]{said[-MAX_TRANSCRIPT_CHARS:]}"

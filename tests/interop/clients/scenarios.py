"""What each client is put through, and what of its outcome is right. Pure but for the action in the middle."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs

from tests.interop.clients.world import World

Json = dict[str, Any]
LONG = "stream 300 10"  # 300 words, 3 s
WHOLE = "".join(f"word{n} " for n in range(300))
ENDLESS = "stream 3000 10"
READERS = frozenset({"httpx-sse", "eventsource-npm", "chromium", "firefox"})  # of the event stream, no more
RESUMING = READERS | {"ours", "ws", "ai5", "ai6", "ai7"}


@attrs.frozen
class Scenario:
    """`meanwhile` happens when the client has the first text. `judge` gives what is wrong, or nothing."""

    name: str
    agent: str
    text: str
    judge: Callable[[Json], str | None]
    meanwhile: Callable[[World], Awaitable[None]] | None = None
    applies: Callable[[str], bool] = lambda client: True
    cancels: bool = False  # the turn must end as cancelled


def _complete(expected: str) -> Callable[[Json], str | None]:
    def judge(outcome: Json) -> str | None:
        if (outcome["end"], outcome["text"].strip()) == ("complete", expected.strip()):
            return None
        return f"{outcome['end']} with {outcome['text'][-60:]!r} {outcome['error'][:200]}"

    return judge


def _error(code: str) -> Callable[[Json], str | None]:
    def judge(outcome: Json) -> str | None:
        if outcome["end"] == "error" and code in outcome["error"]:
            return None
        return f"{outcome['end']} with {outcome['text'][-60:]!r} {outcome['error'][:200]}"

    return judge


def _error_or_all(outcome: Json) -> str | None:
    """What nobody may do: succeed with less, or not end."""
    if outcome["end"] == "error" or (outcome["end"] == "complete" and outcome["text"].strip() == WHOLE.strip()):
        return None
    return f"{outcome['end']} with {len(outcome['text'])} characters {outcome['error'][:200]}"


def _cancelled(outcome: Json) -> str | None:
    return None if outcome["end"] == "cancelled" else f"{outcome['end']} {outcome['error'][:200]}"


def _asks(outcome: Json) -> str | None:
    """Where the answer is a new message, only what follows is in the second response."""
    return _complete("blue")(outcome)


SCENARIOS = [
    Scenario("reply", "echo", "hello there, friend", _complete("hello there, friend")),
    Scenario(
        "tool",
        "model",
        "!tool look {}\n!said",
        _complete("42"),
        applies=lambda client: client not in READERS | {"llm", "open-webui"},
    ),
    Scenario("question", "echo", "ask Which one?", _asks),
    Scenario("cancel", "echo", ENDLESS, _cancelled, cancels=True),
    Scenario("provider-401", "model", "!status 401", _error("PROVIDER_AUTH")),
    Scenario("provider-429", "model", "!status 429 insufficient_quota", _error("PROVIDER_QUOTA")),
    Scenario("provider-cut", "model", "!cut half a text", _error("PROVIDER_UNAVAILABLE")),
    Scenario("provider-hang", "impatient", "!hang-after half a text", _error("NO_PROGRESS")),
    Scenario("worker-killed", "echo", ENDLESS, _error("WORKER_CRASHED"), World.kill_workers),
    Scenario("server-restarted", "echo", LONG, _error_or_all, World.restart),
    Scenario("server-killed", "echo", LONG, _error_or_all, World.kill),
    Scenario("resume", "echo", LONG, _complete(WHOLE), applies=RESUMING.__contains__),
]

"""Asking the store from a singleton: until it answers. The trust in the host's lease ends long before patience does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from lobu_actors.conversation.commit import Patience, until_known

T = TypeVar("T")
PATIENCE = Patience(3600.0)


async def ask(statement: str, call: Callable[[], Awaitable[T]]) -> T:
    """`call()`'s result, asked again while the store is away. `statement` names it in logs and metrics."""
    return await until_known(statement, call, PATIENCE)

"""One call made on several stores at once, whose answers must be the same; and how operations choose arguments.

The caller of a store gives all ids, so that only times are left out of the comparison, and a refused statement's class
below StoreRejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs
import msgspec

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store import records as r
from lobu_actors.store.errors import SnapshotCorrupt, StoreRejected
from lobu_actors.store.membership_protocol import HostLoad, Rival
from lobu_actors.store.protocol import Store

Pairs = Sequence[tuple[str, Store]]

ALL_EXAMPLES = 1_000_000  # where a limit would count the rows of other examples
MOST = 1000
_TIMES = ("expires_in_seconds", "oldest_owed_seconds", "age_seconds", "accepted_ms", "started_ms", "ended_ms", "at_ms")


class Difference(AssertionError):
    """The stores do not agree."""


@attrs.define
class TwinCalls:
    """`organization` keeps the examples of one database apart; its rival is a second tenant of the same example."""

    stores: Pairs
    organization: str
    conversations: list[ConversationRef] = attrs.field(factory=list)
    turns: list[r.NewTurn] = attrs.field(factory=list)
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = attrs.field(factory=list)
    log: list[str] = attrs.field(factory=list)
    ids: int = 0

    @property
    def organizations(self) -> tuple[str, str]:
        return self.organization, f"{self.organization}_rival"

    async def call(self, method: str, *arguments: Any, **named: Any) -> Any:
        """The answer that all gave. Raises Difference."""
        answers = [await _answer(store, method, arguments, named) for _, store in self.stores]
        shown = [self._comparable(answer) for answer in answers]
        self.log.append(f"{method}{arguments}{named or ''} -> {shown[0]}")
        if any(one != shown[0] for one in shown[1:]):
            said = "\n".join(f"  {name}: {one}" for (name, _), one in zip(self.stores, shown, strict=True))
            raise Difference(f"{method}{arguments}{named or ''}\n{said}\n" + "\n".join(self.log[-12:]))
        return None if isinstance(answers[0], Exception) else answers[0]

    async def write(self, method: str, *arguments: Any, **named: Any) -> Any:
        """A call that may be made again later."""
        self.calls.append((method, arguments, named))
        return await self.call(method, *arguments, **named)

    def fresh(self, prefix: str) -> str:
        self.ids += 1
        return f"{prefix}{self.ids:04}"

    def _comparable(self, value: Any) -> Any:
        if isinstance(value, Exception):
            return f"raised {StoreRejected.__name__ if isinstance(value, StoreRejected) else type(value).__name__}"
        if isinstance(value, datetime):
            return "a time"
        if isinstance(value, list | tuple):
            return [self._comparable(one) for one in value if not self._is_elsewhere(one)]
        if isinstance(value, msgspec.Struct):
            fields = {name: getattr(value, name) for name in value.__struct_fields__ if name not in _TIMES}
            return {name: self._comparable(one) for name, one in fields.items()} | {"is": type(value).__name__}
        return value

    def _is_elsewhere(self, value: Any) -> bool:
        """Of another example in the same database; all of whose names begin so."""
        if isinstance(value, str) and value.startswith("example"):
            return value not in self.organizations and not value.startswith(f"{self.organization}_")
        if isinstance(value, r.Owed | r.Trimmable):
            value = value.ref
        if isinstance(value, ConversationRef):
            return value.organization_id not in self.organizations
        of_hosts = isinstance(value, r.Host | HostLoad | Rival)
        return of_hosts and not value.host_id.startswith(f"{self.organization}_")


def newest(found: Sequence[Any], a: int) -> Any:
    """The a-th from the end, whatever `a` is."""
    return found[-1 - a % len(found)]


async def _answer(store: Store, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    try:
        return await getattr(store, method)(*arguments, **named)
    except (StoreRejected, SnapshotCorrupt, ValueError) as error:
        return error

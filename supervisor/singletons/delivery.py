"""Brings what chats are owed to them: at least once, in order, until the platform took it or said that it never will.

The debts are rows, written before their messages were accepted; their texts are the terminal events in the log. Of a
conversation only the oldest debt is worked on; a chat that cannot be reached holds up no other one.

Exactly once is impossible: between the platform's taking a part and the note of it in the store, the process may end,
and then the part is sent again. What bounds it: parts are noted one by one, one at a time in each conversation, so a
lost holder doubles at most one message a chat.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import attrs
import structlog
import trio

from lobu_actors import telemetry
from lobu_actors.contract.events import Data, EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import DeliveryStatus
from lobu_actors.runtime.intensity import Backoff
from lobu_actors.store.protocol import Store
from lobu_actors.store.singleton_records import OwedDelivery
from supervisor.singletons.asking import ask
from supervisor.singletons.singleton import Hold

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.3  # while something is owed; the index of what is owed is small
IDLE_SECONDS = 5.0
BATCH = 200
AT_ONCE = 8
BACKOFF = Backoff(initial_seconds=0.5, factor=2.0, max_seconds=30.0)
TYPING_SECONDS = 4.5  # a chat shows it for five
FORGET_INTERVAL_SECONDS = 600.0
FORGET_BATCH = 1000


class ChatRefused(Exception):
    """The platform will never take this: the chat is gone, the bot was blocked, the message is not fit."""


class ChatUnavailable(Exception):
    """Not now. `retry_after`: how many seconds the platform asked to wait; None: it did not say."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class ChatPlatform(Protocol):
    name: str

    def parts(self, event_type: EventType | None, data: Data) -> list[str]:
        """What a terminal event, or with None a notice under `text`, is as messages. The same every time."""
        ...

    async def send(self, address: dict[str, Any], text: str, *, first: bool) -> None:
        """Raises ChatRefused, ChatUnavailable. Bounded in time."""
        ...

    async def show_typing(self, address: dict[str, Any]) -> None:
        """As `send`."""
        ...


@attrs.define
class _Chat:
    busy: bool = False
    failures: int = 0
    not_before: float = 0.0  # trio clock
    typed_at: float = -TYPING_SECONDS


class Delivery:
    """Part of a poller's body, under its lease."""

    def __init__(self, store: Store, platform: ChatPlatform, hold: Hold, *, kept_seconds: float) -> None:
        self._store = store
        self._platform = platform
        self._hold = hold
        self._kept_seconds = kept_seconds
        self._chats: dict[ConversationRef, _Chat] = {}
        self._limiter = trio.CapacityLimiter(AT_ONCE)
        self._changed = trio.Event()

    def wake(self) -> None:
        """Something is owed that was not before, or the next of a chat may be looked at."""
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled. Raises SingletonLost."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._forget)
            while True:
                self._changed = trio.Event()
                # What ends while this looks may be shown as owed still.
                busy = {ref for ref, chat in self._chats.items() if chat.busy}
                find = partial(self._store.find_owed_deliveries, self._hold.lease.name, limit=BATCH)
                owed = await ask("find_owed_deliveries", find)
                refs = {found.ref for found in owed}
                self._chats = {ref: chat for ref, chat in self._chats.items() if ref in refs or chat.busy}
                for found in owed:
                    if found.ref not in busy:
                        self._attend_to(found, nursery)
                with trio.move_on_after(LOOK_SECONDS if owed else IDLE_SECONDS):
                    await self._changed.wait()

    def _attend_to(self, found: OwedDelivery, nursery: trio.Nursery) -> None:
        chat, now = self._chats.setdefault(found.ref, _Chat()), trio.current_time()
        if now < chat.not_before:
            return
        if found.notice is not None or found.terminal_seq is not None:
            chat.busy = True
            nursery.start_soon(self._deliver, found, chat)
        elif found.has_turn and now - chat.typed_at >= TYPING_SECONDS:
            chat.typed_at = now
            nursery.start_soon(self._show_typing, found)

    async def _deliver(self, found: OwedDelivery, chat: _Chat) -> None:
        try:
            async with self._limiter:
                await self._send_parts(found, await self._parts(found))
            chat.failures = 0
        except ChatRefused as error:
            log.warning("undeliverable", platform=self._platform.name, delivery=found.delivery_id, error=str(error))
            await self._record(found, DeliveryStatus.UNDELIVERABLE, found.parts_sent, str(error))
        except ChatUnavailable as error:
            chat.failures += 1
            wait = BACKOFF.delay(chat.failures) if error.retry_after is None else error.retry_after
            chat.not_before = trio.current_time() + wait
            telemetry.PLATFORM_DELIVERIES.labels(self._platform.name, "put off").inc()
            if chat.failures == 1:
                log.warning("not delivered yet", delivery=found.delivery_id, error=str(error), wait_seconds=wait)
        finally:
            chat.busy = False
        self.wake()

    async def _parts(self, found: OwedDelivery) -> list[str]:
        if found.notice is not None:
            return self._platform.parts(None, {"text": found.notice})
        assert found.terminal_seq is not None
        read = partial(self._store.read_events, found.ref, found.terminal_seq, limit=1)
        events = await ask("read_events", read)
        if not events or events[0].seq != found.terminal_seq:
            raise ChatRefused("its terminal event was deleted, being older than what is kept")
        return self._platform.parts(events[0].type, events[0].data)

    async def _send_parts(self, found: OwedDelivery, parts: list[str]) -> None:
        # At least the last: a predecessor of another version may have cut the text into more.
        for number in range(min(found.parts_sent, len(parts) - 1), len(parts)):
            await self._platform.send(found.address, parts[number], first=number == 0)
            is_last = number + 1 == len(parts)
            status = DeliveryStatus.DELIVERED if is_last else DeliveryStatus.OWED
            await self._record(found, status, number + 1, None)

    async def _record(self, found: OwedDelivery, status: DeliveryStatus, parts_sent: int, error: str | None) -> None:
        if status is not DeliveryStatus.OWED:
            telemetry.PLATFORM_DELIVERIES.labels(self._platform.name, status.value).inc()
        record = partial(
            self._store.record_delivery,
            self._hold.lease,
            found.delivery_id,
            status,
            parts_sent=parts_sent,
            error=error,
        )
        self._hold.check(await ask("record_delivery", record))

    async def _show_typing(self, found: OwedDelivery) -> None:
        with suppress(ChatRefused, ChatUnavailable):  # an ornament
            await self._platform.show_typing(found.address)

    async def _forget(self) -> None:
        while True:
            forget = partial(
                self._store.forget_deliveries,
                self._hold.lease,
                older_than_seconds=self._kept_seconds,
                limit=FORGET_BATCH,
            )
            if await ask("forget_deliveries", forget) < FORGET_BATCH:
                await trio.sleep(FORGET_INTERVAL_SECONDS)

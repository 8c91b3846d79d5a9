"""Hints through the store, where there is no link: told off the commit path, many in one notice, on a connection's own.

A notice is a list of conversations with the message that came (or none: something is owed), or the word to look for
what is owed. A lost one costs what a lost hint costs: the sweep finds the turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import structlog
import trio

from lobu_actors import telemetry
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.errors import StoreError
from lobu_actors.store.link_protocol import LinkStore

log = structlog.get_logger(__name__)

TOLD_EVERY_SECONDS = 0.05
PAYLOAD_BYTES = 7800  # the server takes less than 8,000
KEPT_PER_HOST = 1000
LISTEN_AGAIN_SECONDS = 1.0
LAST_SECONDS = 1.0  # for what is still to be told when this host ends
LOOK = "look"

_Told = tuple[ConversationRef, str | None]
_DECODER: msgspec.json.Decoder[list[_Told]] = msgspec.json.Decoder(list[_Told])


class Notices:
    """A supervised child. `hinted` is called with each message that another host accepted for a conversation of ours,
    and with none for a conversation that it gave up; `look` when there were too many to name."""

    def __init__(
        self,
        store: LinkStore,
        me: Callable[[], str],
        hinted: Callable[[ConversationRef, str | None], Awaitable[None]],
        look: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._me = me
        self._hinted = hinted
        self._look = look
        self._untold: dict[str, dict[_Told, None]] = {}
        self._more = trio.Event()

    def tell(self, host_id: str, ref: ConversationRef, message_id: str | None) -> None:
        """Soon, and together with what else that host is told meanwhile. No message: the conversation is free."""
        untold = self._untold.setdefault(host_id, {})
        if len(untold) <= KEPT_PER_HOST:
            untold[ref, message_id] = None
        self._more.set()

    async def run(self, context: ChildContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_all)
            nursery.start_soon(self._listen)
            context.started()
            await context.stopping.wait()
            nursery.cancel_scope.cancel()
        with trio.move_on_after(LAST_SECONDS):
            await self._tell_now()

    async def _tell_all(self) -> None:
        while True:
            await self._more.wait()
            self._more = trio.Event()
            await trio.sleep(TOLD_EVERY_SECONDS)
            await self._tell_now()

    async def _tell_now(self) -> None:
        """Each host once; what comes meanwhile is told the next time."""
        for host_id in list(self._untold):
            told = self._untold.pop(host_id)
            try:
                await self._store.notify(host_id, payload(list(told)))
                telemetry.LINK_NOTICES.inc(len(told))
            except trio.Cancelled:  # this host ends, and tells it then
                self._untold[host_id] = told | self._untold.get(host_id, {})
                raise
            except StoreError as error:
                log.warning("notice not sent, a sweep finds it", host=host_id, error=str(error))

    async def _listen(self) -> None:
        while True:
            me = self._me()
            if me:
                try:
                    async with self._store.listening(me) as notices:
                        await self._look()  # for what was told before
                        while me == self._me():
                            for text in await notices.receive():
                                await self._heard(text)
                except StoreError as error:
                    log.warning("not listening for notices", error=str(error))
            await trio.sleep(LISTEN_AGAIN_SECONDS)

    async def _heard(self, text: str) -> None:
        if text == LOOK:
            await self._look()
            return
        try:
            told = _DECODER.decode(text)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            log.warning("a notice that is none", error=str(error))
            return
        for ref, message_id in told:
            await self._hinted(ref, message_id)


def payload(told: list[_Told]) -> str:
    """The messages by name, or the word to look for them when that is too long."""
    text = msgspec.json.encode(told)
    return text.decode() if len(text) <= PAYLOAD_BYTES else LOOK

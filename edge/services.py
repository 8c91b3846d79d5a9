"""What every route works with, in one value; made by `edge.application`. No globals, no lookups by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, cast

import msgspec

from edge.accepting import Acceptance
from edge.auth import Authenticator, Principal
from edge.guardrails import Guardrails
from edge.request import opening
from edge.settings import EdgeSettings
from edge.streams import Streams
from edge.tenancy import Tenancy
from edge.tokens import JwtKeys
from lobu_actors.gateway.protocol import Gateway
from lobu_actors.gateway.worker_door import WorkerDoor
from lobu_actors.store.protocol import Store
from lobu_actors.store.records import Conversation

if TYPE_CHECKING:
    from quart.wrappers.base import BaseRequestWebsocket

# The ASGI scope's entries for what a request holds until it is over, and for what is done then; see `edge.asgi`.
HELD = "lobu.held"
AFTERWARDS = "lobu.afterwards"


class Services(msgspec.Struct, frozen=True):
    store: Store
    gateway: Gateway
    keys: JwtKeys
    settings: EdgeSettings
    authenticate: Authenticator
    tenancy: Tenancy
    acceptance: Acceptance
    guardrails: Guardrails
    streams: Streams
    worker_door: WorkerDoor | None

    @classmethod
    def build(
        cls,
        store: Store,
        gateway: Gateway,
        keys: JwtKeys,
        settings: EdgeSettings,
        streams: Streams,
        worker_door: WorkerDoor | None,
    ) -> Services:
        return cls(
            store=store,
            gateway=gateway,
            keys=keys,
            settings=settings,
            authenticate=Authenticator(store, keys, settings),
            tenancy=Tenancy(store, settings),
            acceptance=Acceptance(store, gateway, settings),
            guardrails=Guardrails(store, settings),
            streams=streams,
            worker_door=worker_door,
        )

    def draining(self) -> bool:
        return self.streams.stopping or self.gateway.draining

    async def conversation(
        self, key: str, *, fresh: bool = True, by_ticket: bool = False
    ) -> tuple[Principal, Conversation]:
        """The caller, and the conversation if it may use it. `by_ticket`: this address takes its own tickets too.

        Raises Refusal 401, 403, 404, 429; StoreUnavailable.
        """
        principal = await self.authenticate(ticket_for=key if by_ticket else None)
        return principal, await self.tenancy.authorize(principal, key, fresh=fresh)

    def afterwards(self, do: Callable[[], Awaitable[None]]) -> None:
        """Have this done when the current request's connection is done with it, whatever way it ends; it is bounded."""
        scope = cast("BaseRequestWebsocket", opening()).scope
        scope[AFTERWARDS].append(do)  # type: ignore[literal-required]

    def held(self) -> ExitStack:
        """What the current request holds; let go when its connection is done with it, whatever way it ends."""
        held = cast("BaseRequestWebsocket", opening()).scope[HELD]  # type: ignore[literal-required]
        assert isinstance(held, ExitStack)
        return held

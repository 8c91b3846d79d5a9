"""An edge over the memory store: two organizations with keys, one agent each, and the app, ready to be asked."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import attrs
from quart_trio import QuartTrio

from edge.app import create_app
from edge.application import Application
from edge.services import Services
from edge.settings import EdgeSettings
from edge.streams import Streams
from edge.tokens import JwtKeys, new_api_key
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.states import Role
from lobu_actors.store.memory import MemoryStore
from lobu_actors.store.records import Accepted, Agent, ApiKey, NewTurn, Turn
from tests.fakes.gateway import FakeGateway, Owner

SECRET = "s" * 32


@attrs.frozen
class EdgeWorld:
    store: Any
    gateway: FakeGateway
    keys: JwtKeys
    settings: EdgeSettings
    admin_key: str  # of org `acme`
    user_key: str  # of org `acme`, user `ann`
    other_key: str  # admin of org `rival`
    bare_key: str  # admin of org `bare`, which has no agents

    @classmethod
    async def make(cls, settings: EdgeSettings | None = None, store: Any = None) -> EdgeWorld:
        settings = settings or EdgeSettings()
        store = store or MemoryStore()
        gateway = FakeGateway()
        keys = JwtKeys.from_secrets([SECRET])
        made = []
        for organization, user, role in (
            ("acme", "root", Role.ADMIN),
            ("acme", "ann", Role.USER),
            ("rival", "root", Role.ADMIN),
            ("bare", "root", Role.ADMIN),
        ):
            await store.ensure_organization(organization)
            key, key_hash = new_api_key()
            await store.put_api_key(ApiKey(key_hash, organization, user, role, "test"))
            made.append(key)
        for organization in ("acme", "rival"):
            await store.apply_agents(organization, [Agent(organization, "echo", "echo", is_default=True)])
        return cls(store, gateway, keys, settings, *made)

    @cached_property
    def application(self) -> Application:
        """As it is served."""
        streams = Streams(self.settings)
        return Application(Services.build(self.store, self.gateway, self.keys, self.settings, streams, None))

    @property
    def services(self) -> Services:
        return self.application.services

    @cached_property
    def app(self) -> QuartTrio:
        """The routes alone."""
        return create_app(self.services)

    async def conversation(self, thread: str | None = None, user: str = "ann") -> ConversationRef:
        key = f"echo_{user}_acme" + (f"_{thread}" if thread else "")
        ref = ConversationRef("acme", "echo", key)
        await self.store.open_conversation(ref, user)
        return ref

    async def message(self, ref: ConversationRef, content: str = "hello", message_id: str | None = None) -> Turn:
        outcome = await self.store.accept_turn(
            NewTurn(ref, new_id(), message_id or new_id(), content), max_owed=self.settings.max_owed_turns
        )
        assert isinstance(outcome, Accepted)
        return outcome.turn

    async def owner(self, ref: ConversationRef) -> Owner:
        return await Owner.of(self.store, self.gateway.feeds, ref)

"""Who is calling: a Bearer API key or a conversation token becomes a Principal. Decides nothing about conversations."""

from __future__ import annotations

import time
from collections import OrderedDict

import attrs
import trio
from quart import request

from edge.errors import unauthorized
from edge.settings import EdgeSettings
from edge.tokens import API_KEY_PREFIX, ExpiredToken, InvalidToken, JwtKeys, api_key_hash
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import Role
from lobu_actors.store.protocol import TenantStore

MAX_API_KEY_CHARS = 256


@attrs.frozen
class Principal:
    """Who calls, and as what. `bound_to` is set for a token: the one conversation that it opens."""

    organization_id: str
    user_id: str
    role: Role
    bound_to: ConversationRef | None = None

    @property
    def conversation_id(self) -> str | None:
        return self.bound_to.conversation_id if self.bound_to else None


class Authenticator:
    """Checks credentials. What was found good is believed for `api_key_cache_seconds`: so late a revocation works.

    What was found bad is never remembered, so a key works from the moment it is stored.
    """

    def __init__(self, store: TenantStore, keys: JwtKeys, settings: EdgeSettings) -> None:
        self._store = store
        self._keys = keys
        self._settings = settings
        self._good: OrderedDict[str, tuple[float, Principal]] = OrderedDict()

    async def __call__(self) -> Principal:
        """The current request's principal. Raises Refusal 401; StoreUnavailable."""
        scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not credential:
            raise unauthorized("Send an API key or a conversation token as Authorization: Bearer.")
        credential_hash = api_key_hash(credential)  # no credential is kept in the clear
        known = self._good.get(credential_hash)
        if known is not None and known[0] > trio.current_time():
            return known[1]
        believed = self._settings.api_key_cache_seconds
        if credential.startswith(API_KEY_PREFIX):
            principal = await self._by_api_key(credential, credential_hash)
        else:
            principal, left = self._by_token(credential)
            believed = min(believed, left)
        self._good[credential_hash] = (trio.current_time() + believed, principal)
        self._good.move_to_end(credential_hash)
        if len(self._good) > self._settings.api_key_cache_entries:
            self._good.popitem(last=False)
        return principal

    def _by_token(self, token: str) -> tuple[Principal, float]:
        """The principal, and for how many seconds the token is still good."""
        leeway = self._settings.token_leeway_seconds
        try:
            claims = self._keys.verify(token, leeway)
        except ExpiredToken:
            raise unauthorized("The token has expired; open the conversation again.", ApiError.TOKEN_EXPIRED) from None
        except InvalidToken:
            raise unauthorized("The token is not valid.") from None
        principal = Principal(claims.ref.organization_id, claims.user_id, Role.USER, claims.ref)
        return principal, claims.expires_at + leeway - time.time()

    async def _by_api_key(self, key: str, key_hash: str) -> Principal:
        if len(key) > MAX_API_KEY_CHARS or not key.isascii():
            raise unauthorized("The API key is not valid.")
        found = await self._store.find_api_key(key_hash)
        if found is None:
            self._good.pop(key_hash, None)
            raise unauthorized("The API key is not valid.")
        return Principal(found.organization_id, found.user_id, found.role)

"""Who is calling: an API key, a token, a ticket or a cookie becomes a Principal. Decides nothing about conversations.

A Bearer credential wins over a ticket, a ticket over a cookie. Only a cookie is sent by browsers unasked, so only with
a cookie does it matter which page the request comes from.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from typing import Protocol

import msgspec
import trio

from edge.errors import Refusal, unauthorized
from edge.origins import require_own_origin
from edge.rates import Rates
from edge.request import opening
from edge.settings import EdgeSettings
from edge.tickets import KeySession, TicketClaims, verify_session, verify_ticket
from edge.tokens import API_KEY_PREFIX, ExpiredToken, InvalidToken, JwtKeys, TokenClaims, api_key_hash
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.states import Role
from lobu_actors.store.errors import StoreOutcomeUnknown, StoreUnavailable
from lobu_actors.store.protocol import TenantStore
from lobu_actors.store.ticket_protocol import TicketStore

MAX_API_KEY_CHARS = 256
SESSION_COOKIE = "lobu_session"
TICKET_ARGUMENT = "ticket"
# A used ticket is known to be used for so long after it ended, however much the clocks of edges and database differ.
USED_TICKET_SECONDS = 3600.0
_AGAIN_SECONDS = 0.1


class CredentialStore(TenantStore, TicketStore, Protocol):
    """What checking credentials needs."""


class Principal(msgspec.Struct, frozen=True):
    """Who calls, and as what. `bound_to` is set for what opens one conversation only."""

    organization_id: str
    user_id: str
    role: Role
    bound_to: ConversationRef | None = None
    key_hash: str | None = None  # of the API key behind it

    @property
    def conversation_id(self) -> str | None:
        return self.bound_to.conversation_id if self.bound_to else None

    @property
    def rate_key(self) -> str:
        """Whose requests are counted together: an API key's, or those of all tokens of one user."""
        # Ids have no slash, so no user's is another's, and none is a hash.
        return self.key_hash or f"{self.organization_id}/{self.user_id}"


class Authenticator:
    """Checks credentials. What was found good is believed for `api_key_cache_seconds`: so late a revocation works.

    What was found bad is never remembered, so a key works from the moment it is stored.
    """

    def __init__(self, store: CredentialStore, keys: JwtKeys, settings: EdgeSettings) -> None:
        self._store = store
        self._keys = keys
        self._settings = settings
        self._rates = Rates(settings)
        # (believed until, by trio's clock; who; when the credential itself ends, epoch seconds)
        self._good: OrderedDict[str, tuple[float, Principal, float]] = OrderedDict()

    async def __call__(self, *, ticket_for: str | None = None) -> Principal:
        """The current request's principal. `ticket_for`: a ticket for this conversation will do, and is used up.

        Raises Refusal 401; 403 for a cookie from another's page; 429. StoreUnavailable.
        """
        credential = bearer_credential()
        if credential is not None:
            return (await self._by_bearer(credential))[0]
        ticket = opening().args.get(TICKET_ARGUMENT)
        if ticket is not None and ticket_for is not None:
            return await self._by_ticket(ticket, ticket_for)
        cookie = opening().cookies.get(SESSION_COOKIE)
        if cookie:
            require_own_origin(self._settings)
            principal = await self._by_cookie(cookie)
            self._rates.take(principal.rate_key)
            return principal
        raise _no_credential()

    def again(self, principal: Principal) -> None:
        """Count a further call of one whose ticket was used up at its opening. Raises Refusal 429."""
        self._rates.take(principal.rate_key)

    async def bearer(self) -> tuple[Principal, float]:
        """The principal of the request's Bearer credential alone, and when that ends (epoch seconds).

        Raises Refusal 401, 429; StoreUnavailable.
        """
        credential = bearer_credential()
        if credential is None:
            raise _no_credential()
        return await self._by_bearer(credential)

    async def _by_bearer(self, credential: str) -> tuple[Principal, float]:
        credential_hash = api_key_hash(credential)  # no credential is kept in the clear
        if credential.startswith(API_KEY_PREFIX):
            found = await self._by_key(credential, credential_hash), math.inf
        else:
            found = self._by_token(credential, credential_hash)
        if found[0].role is Role.WORKER:
            raise unauthorized("This key is a worker's; it opens /worker/link and nothing else.")
        self._rates.take(found[0].rate_key)
        return found

    async def worker(self) -> Principal:
        """The principal of a remote worker's key; its user is the worker type that it is for.

        Raises Refusal 401, 429; StoreUnavailable.
        """
        credential = bearer_credential()
        if credential is None or not credential.startswith(API_KEY_PREFIX):
            raise unauthorized(
                "Send a worker's key as Authorization: Bearer; `lobu token create --worker TYPE` makes it."
            )
        principal = await self._by_key(credential, api_key_hash(credential))
        if principal.role is not Role.WORKER:
            raise unauthorized("This key is no worker's; `lobu token create --worker TYPE` makes one.")
        self._rates.take(principal.rate_key)
        return principal

    async def _by_key(self, credential: str, credential_hash: str) -> Principal:
        if len(credential) > MAX_API_KEY_CHARS or not credential.isascii():
            raise unauthorized("The API key is not valid.")
        return await self._by_key_hash(credential_hash, "The API key is not valid.")

    async def _by_key_hash(self, key_hash: str, otherwise: str) -> Principal:
        known = self._believed(key_hash)
        if known is not None:
            return known[0]
        found = await self._store.find_api_key(key_hash)
        if found is None:
            self._good.pop(key_hash, None)
            raise unauthorized(otherwise)
        principal = Principal(found.organization_id, found.user_id, found.role, key_hash=key_hash)
        self._believe(key_hash, principal, math.inf)
        return principal

    def _by_token(self, token: str, token_hash: str) -> tuple[Principal, float]:
        known = self._believed(token_hash)
        if known is not None:
            return known
        try:
            claims = self._keys.verify(token, self._settings.token_leeway_seconds)
        except ExpiredToken:
            raise unauthorized("The token has expired; open the conversation again.", ApiError.TOKEN_EXPIRED) from None
        except InvalidToken:
            raise unauthorized("The token is not valid.") from None
        principal = _of_claims(claims)
        self._believe(token_hash, principal, claims.expires_at)
        return principal, claims.expires_at

    async def _by_cookie(self, cookie: str) -> Principal:
        try:
            session = verify_session(self._keys, cookie, self._settings.token_leeway_seconds)
        except ExpiredToken:
            raise unauthorized("The browser's session is over; sign in again.", ApiError.TOKEN_EXPIRED) from None
        except InvalidToken:
            raise unauthorized("The browser's session is not valid; sign in again.") from None
        if isinstance(session, KeySession):
            return await self._by_key_hash(session.key_hash, "The browser's session is over; sign in again.")
        return _of_claims(session)

    async def _by_ticket(self, ticket: str, conversation_id: str) -> Principal:
        try:
            claims = verify_ticket(self._keys, ticket, self._settings.token_leeway_seconds)
        except ExpiredToken:
            raise unauthorized("The ticket has expired; ask for a new one.", ApiError.TICKET_EXPIRED) from None
        except InvalidToken:
            raise unauthorized("The ticket is not valid.", ApiError.TICKET_INVALID) from None
        if claims.ref.conversation_id != conversation_id:
            raise unauthorized("The ticket is for another conversation.", ApiError.TICKET_INVALID)
        principal = Principal(claims.ref.organization_id, claims.user_id, Role.USER, claims.ref)
        self._rates.take(principal.rate_key)
        if not await self._use(claims):
            raise unauthorized("The ticket was used already; ask for a new one.", ApiError.TICKET_USED)
        return principal

    async def _use(self, claims: TicketClaims) -> bool:
        """Whether this request is the ticket's one use. Asked again when the answer was lost, within a bound."""
        use_id, organization = new_id(), claims.ref.organization_id
        with trio.move_on_after(self._settings.read_seconds):
            while True:
                try:
                    return await self._store.use_ticket(
                        organization, claims.ticket_id, use_id, kept_seconds=USED_TICKET_SECONDS
                    )
                except StoreOutcomeUnknown:
                    await trio.sleep(_AGAIN_SECONDS)
        raise StoreUnavailable("whether the ticket was used could not be stored in time")

    def _believed(self, credential_hash: str) -> tuple[Principal, float] | None:
        known = self._good.get(credential_hash)
        return None if known is None or known[0] <= trio.current_time() else known[1:]

    def _believe(self, credential_hash: str, principal: Principal, expires_at: float) -> None:
        left = expires_at + self._settings.token_leeway_seconds - time.time()
        until = trio.current_time() + min(self._settings.api_key_cache_seconds, left)
        self._good[credential_hash] = (until, principal, expires_at)
        self._good.move_to_end(credential_hash)
        if len(self._good) > self._settings.api_key_cache_entries:
            self._good.popitem(last=False)


def bearer_credential() -> str | None:
    """The Bearer credential; None for another scheme, as a proxy's Basic, which is none of ours."""
    scheme, _, credential = opening().headers.get("Authorization", "").partition(" ")
    return (credential.strip() or None) if scheme.lower() == "bearer" else None


def _no_credential() -> Refusal:
    return unauthorized("Send an API key or a conversation token as Authorization: Bearer.")


def _of_claims(claims: TokenClaims) -> Principal:
    return Principal(claims.ref.organization_id, claims.user_id, Role.USER, claims.ref)

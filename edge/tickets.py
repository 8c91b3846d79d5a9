"""Tickets and browser sessions: signed statements for callers that cannot send headers. Pure; the store says if used.

A ticket stands in an address, where logs and histories keep it, so it opens one conversation's stream, once and soon.
A browser session stands in a cookie. It names the API key by its hash, so that revoking the key ends the session, or
the conversation of the token that it was got with. Each has an audience of its own: neither opens the other's door.
"""

from __future__ import annotations

import secrets

import msgspec

from edge.tokens import InvalidToken, JwtKeys, TokenClaims
from lobu_actors.contract.ids import ConversationRef

TICKET_AUDIENCE = "lobu-ticket"
SESSION_AUDIENCE = "lobu-session"
_CONVERSATION = ("org", "agt", "cnv", "sub")


class TicketClaims(msgspec.Struct, frozen=True):
    ref: ConversationRef
    user_id: str
    ticket_id: str


class KeySession(msgspec.Struct, frozen=True):
    """A session that an API key began; the key's row says who it is, and whether it still is."""

    key_hash: str


def sign_ticket(keys: JwtKeys, ref: ConversationRef, user_id: str, lifetime_seconds: int) -> tuple[str, int]:
    """The ticket, and when it ends (epoch milliseconds)."""
    claims = _names(ref, user_id) | {"jti": secrets.token_urlsafe(18)}
    return keys.encode(claims, TICKET_AUDIENCE, lifetime_seconds)


def verify_ticket(keys: JwtKeys, ticket: str, leeway_seconds: int = 0) -> TicketClaims:
    """Raises InvalidToken or ExpiredToken. Says nothing of whether it was used."""
    claims = keys.decode(ticket, TICKET_AUDIENCE, (), leeway_seconds)
    *place, user_id, ticket_id = _texts(claims, (*_CONVERSATION, "jti"))
    return TicketClaims(ConversationRef(*place), user_id, ticket_id)


def sign_key_session(keys: JwtKeys, key_hash: str, lifetime_seconds: int) -> tuple[str, int]:
    return keys.encode({"key": key_hash}, SESSION_AUDIENCE, lifetime_seconds)


def sign_token_session(keys: JwtKeys, ref: ConversationRef, user_id: str, lifetime_seconds: int) -> tuple[str, int]:
    return keys.encode(_names(ref, user_id), SESSION_AUDIENCE, lifetime_seconds)


def verify_session(keys: JwtKeys, session: str, leeway_seconds: int = 0) -> KeySession | TokenClaims:
    """Raises InvalidToken or ExpiredToken."""
    claims = keys.decode(session, SESSION_AUDIENCE, (), leeway_seconds)
    if "key" in claims:
        return KeySession(_texts(claims, ("key",))[0])
    *place, user_id = _texts(claims, _CONVERSATION)
    return TokenClaims(ConversationRef(*place), user_id, float(claims["exp"]))


def _names(ref: ConversationRef, user_id: str) -> dict[str, str]:
    return dict(zip(_CONVERSATION, (ref.organization_id, ref.agent_id, ref.conversation_id, user_id), strict=True))


def _texts(claims: dict[str, object], names: tuple[str, ...]) -> list[str]:
    texts = [text for name in names if isinstance(text := claims.get(name), str) and text]
    if len(texts) != len(names):
        raise InvalidToken("claims are not names")
    return texts

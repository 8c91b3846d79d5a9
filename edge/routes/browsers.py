"""What browsers need, which cannot send headers from everywhere: a cookie, and tickets for event streams."""

from __future__ import annotations

import time

from quart import Blueprint, Response, request

from edge.auth import SESSION_COOKIE, Principal, bearer_credential
from edge.errors import unauthorized
from edge.origins import is_https, require_own_origin
from edge.responses import json_response
from edge.services import Services
from edge.tickets import sign_key_session, sign_ticket, sign_token_session
from lobu_actors.contract.errors import ApiError

SESSION_PATH = "/api/v1/session"
_NO_STORE = {"Cache-Control": "no-store"}


def routes(services: Services) -> Blueprint:
    blueprint = Blueprint("browsers", __name__)

    @blueprint.post(SESSION_PATH)
    async def begin_session() -> Response:
        """A cookie for this browser in exchange for a Bearer credential, which it does not outlive.

        A cookie alone gets no new one, or it would last for ever.
        """
        principal, ends_at = await services.authenticate.bearer()
        lifetime = int(min(services.settings.session_seconds, ends_at - time.time()))
        if lifetime < 1:
            raise unauthorized("The token is about to expire; open the conversation again.", ApiError.TOKEN_EXPIRED)
        session, expires_at = _session(services, principal, lifetime)
        response = json_response({"success": True, "expiresAt": expires_at}, 200, _NO_STORE)
        _set_cookie(services, response, session, lifetime)
        return response

    @blueprint.delete(SESSION_PATH)
    async def end_session() -> Response:
        """Forget the cookie, whether or not it is still good. Another site's page may not ask for that."""
        if request.cookies.get(SESSION_COOKIE) and bearer_credential() is None:
            require_own_origin(services.settings)
        response = json_response({"success": True}, 200, _NO_STORE)
        _set_cookie(services, response, "", 0)
        return response

    @blueprint.post("/api/v1/agents/<key>/events/ticket")
    async def ticket(key: str) -> Response:
        """A ticket is its conversation's user's, as a conversation token is, also when an administrator asks."""
        _, conversation = await services.conversation(key)
        text, expires_at = sign_ticket(
            services.keys, conversation.ref, conversation.user_id, services.settings.ticket_seconds
        )
        return json_response({"success": True, "ticket": text, "expiresAt": expires_at}, 200, _NO_STORE)

    return blueprint


def _session(services: Services, principal: Principal, lifetime_seconds: int) -> tuple[str, int]:
    if principal.bound_to is not None:
        return sign_token_session(services.keys, principal.bound_to, principal.user_id, lifetime_seconds)
    assert principal.key_hash is not None
    return sign_key_session(services.keys, principal.key_hash, lifetime_seconds)


def _set_cookie(services: Services, response: Response, value: str, max_age: int) -> None:
    response.set_cookie(
        SESSION_COOKIE,
        value,
        max_age=max_age,
        path="/",
        secure=is_https(services.settings),
        httponly=True,
        samesite="Strict",
    )

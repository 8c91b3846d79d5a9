"""What a worker asks of an edge: the snapshot of its conversation, when it keeps its session in a file of its own.

Every address here takes run tokens and nothing else, and each opens its own run's conversation only, while that run is
live. A posted snapshot is seen by nobody before the run's reply is committed; see ADR 11.
"""

from __future__ import annotations

from quart import Blueprint, Response, request
from werkzeug.datastructures import Headers

from edge.body import LargerBody, read_object
from edge.errors import Refusal, invalid_field, unauthorized
from edge.request import text_field
from edge.responses import json_response
from edge.run_tokens import RunClaims, verify_run
from edge.services import Services
from edge.settings import EdgeSettings
from edge.tokens import ExpiredToken, InvalidToken, JwtKeys
from lobu_actors.contract.errors import ApiError
from lobu_actors.store.errors import SnapshotCorrupt

SNAPSHOT_PATH = "/worker/transcript/snapshot"
_RETRY_SECONDS = 1


def routes(services: Services) -> Blueprint:
    blueprint = Blueprint("worker", __name__)

    @blueprint.get(SNAPSHOT_PATH)
    async def get_snapshot() -> Response:
        """The newest snapshot of the run's conversation, as text; bytes that are not UTF-8 are replaced."""
        claims = await _live_run(services)
        try:
            data = await services.store.read_snapshot(claims.ref)
        except SnapshotCorrupt:
            raise Refusal(409, ApiError.SESSION_DAMAGED, "The stored session is damaged; reset it.") from None
        if data is None:
            raise Refusal(404, ApiError.SNAPSHOT_NOT_FOUND, "This conversation has no snapshot.")
        return json_response({"success": True, "snapshotJsonl": data.decode("utf-8", "replace")})

    @blueprint.post(SNAPSHOT_PATH)
    async def post_snapshot() -> Response:
        """Keep a snapshot for the end of the run; send it before the `complete` frame. Other ends keep none."""
        claims = _claims(services)
        body = await read_object(services.settings)
        if text_field(body, "runId") != claims.run_id:
            raise Refusal(403, ApiError.FORBIDDEN, "The token is another run's.")
        snapshot, ended = body.get("snapshotJsonl"), text_field(body, "terminalStatus")
        if not isinstance(snapshot, str):
            raise invalid_field("snapshotJsonl", "`snapshotJsonl` must be a text.")
        if ended is None:
            raise invalid_field("terminalStatus", "`terminalStatus` says how the run ended, as `completed`.")
        data = snapshot.encode()
        if len(data) > services.settings.max_snapshot_bytes:
            raise Refusal(413, ApiError.BODY_TOO_LARGE, "The snapshot is larger than a session may be.")
        if ended != "completed":
            await _must_live(services, claims)
            return json_response({"success": True, "kept": False})
        kept = await services.store.post_snapshot(claims.ref, claims.run_id, data)
        if kept is None:
            raise _over()
        if not kept:
            raise Refusal(409, ApiError.DUPLICATE_SNAPSHOT, "This run has posted a snapshot already.")
        return json_response({"success": True, "kept": True})

    @blueprint.delete(SNAPSHOT_PATH)
    async def delete_snapshots() -> Response:
        """Delete what is stored of this conversation's sessions; `deleted` pieces. Repeating it deletes nothing."""
        claims = await _live_run(services)
        deleted = await services.gateway.purge_snapshots(claims.ref, claims.run_id)
        if deleted is None:
            await _must_live(services, claims)
            sentence = "The host that runs this conversation did not take the call in time; try again."
            raise Refusal(503, ApiError.DRAINING, sentence, retry_after_seconds=_RETRY_SECONDS)
        return json_response({"success": True, "deleted": deleted})

    return blueprint


def snapshot_body(keys: JwtKeys, settings: EdgeSettings) -> LargerBody:
    """A session in JSON may be twice as long; only a valid run token may send one."""

    def may(headers: Headers) -> bool:
        try:
            verify_run(keys, _token(headers), settings.token_leeway_seconds)
        except (ExpiredToken, InvalidToken):
            return False
        return True

    return LargerBody(SNAPSHOT_PATH, 2 * settings.max_snapshot_bytes, may)


def _token(headers: Headers) -> str:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _claims(services: Services) -> RunClaims:
    token = _token(request.headers)
    if not token:
        raise unauthorized("Send the run token of the `turn` frame as Authorization: Bearer.")
    try:
        return verify_run(services.keys, token, services.settings.token_leeway_seconds)
    except ExpiredToken:
        raise unauthorized("The run token has expired.", ApiError.TOKEN_EXPIRED) from None
    except InvalidToken:
        raise unauthorized("This is no run token.") from None


async def _live_run(services: Services) -> RunClaims:
    claims = _claims(services)
    await _must_live(services, claims)
    return claims


async def _must_live(services: Services, claims: RunClaims) -> None:
    if not await services.store.is_run_live(claims.ref, claims.run_id):
        raise _over()


def _over() -> Refusal:
    return Refusal(403, ApiError.FORBIDDEN, "The token's run is over.")

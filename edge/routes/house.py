"""The stream behind the operations page. For administrators; nothing is computed while nobody reads it."""

from __future__ import annotations

from quart import Blueprint, Response, request

from edge.errors import Refusal
from edge.lookers import Looker, Lookers
from edge.routes.stream import StreamBody
from edge.services import Services
from edge.stream_response import stream_response
from edge.tenancy import may_operate, may_see_hosts
from lobu_actors.contract.errors import ApiError

_RETRY_SECONDS = 5


def routes(services: Services) -> Blueprint:
    blueprint = Blueprint("house", __name__)
    lookers = Lookers(services.store, services.gateway, services.settings)

    @blueprint.get("/api/v1/ops/events")
    async def events() -> Response:
        principal = await services.authenticate()
        if not may_operate(principal):
            raise Refusal(403, ApiError.FORBIDDEN, "This is for administrators; sign in with an admin key.")
        if request.method == "HEAD":
            return stream_response(b"")
        if lookers.number >= services.settings.max_lookers:
            sentence = "As many people look at this page as may at the same time; close one of them."
            raise Refusal(429, ApiError.TOO_MANY_STREAMS, sentence, retry_after_seconds=_RETRY_SECONDS)
        sees_hosts = may_see_hosts(principal, services.settings.organization_id)
        house = services.held().enter_context(lookers.house(principal.organization_id, sees_hosts=sees_hosts))
        return stream_response(StreamBody(Looker(house, services.settings, services.draining)))

    return blueprint

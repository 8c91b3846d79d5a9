"""Health, metrics and the interface's own description. No credentials, and nothing here names a tenant."""

from __future__ import annotations

from functools import cache

import trio
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from quart import Blueprint, Response

from edge import docs_page, openapi
from edge.errors import Refusal, store_unavailable
from edge.responses import json_response
from edge.services import Services
from edge.wire import JSON_TYPE, encode
from lobu_actors.contract.errors import ApiError
from lobu_actors.store.errors import StoreUnavailable

_RETRY_SECONDS = 1


def routes(services: Services) -> Blueprint:
    blueprint = Blueprint("operations", __name__)

    @blueprint.get("/health/live")
    async def live() -> Response:
        return json_response({"success": True, "status": "live"})

    @blueprint.get("/health/ready")
    async def ready() -> Response:
        if services.draining():
            sentence = "This server is going down; ask another."
            raise Refusal(503, ApiError.DRAINING, sentence, retry_after_seconds=_RETRY_SECONDS)
        usable = False
        with trio.move_on_after(services.settings.ready_seconds):
            try:
                await services.store.now()
                usable = True
            except StoreUnavailable:
                usable = False
        if not usable:
            raise store_unavailable()
        return json_response({"success": True, "status": "ready"})

    @blueprint.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), content_type=CONTENT_TYPE_LATEST)

    @blueprint.get("/openapi.json")
    async def description() -> Response:
        return Response(_description(), content_type=JSON_TYPE)

    @blueprint.get("/docs")
    async def docs() -> Response:
        response = Response(_page(), content_type="text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = docs_page.CONTENT_SECURITY_POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    return blueprint


# Made when somebody asks first, which few do; a start need not wait for them.


@cache
def _description() -> bytes:
    return encode(openapi.document())


@cache
def _page() -> bytes:
    return docs_page.page(openapi.document())

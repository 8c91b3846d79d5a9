"""The pages themselves and their files. No credentials: they are the same for all, and what they show they ask for.

A browser keeps the files and asks each time whether they are what it has, so that a new version works at once.
"""

from __future__ import annotations

from quart import Blueprint, Response, request

from edge.assets import CONTENT_SECURITY_POLICY, Asset, load_assets
from edge.errors import Refusal
from edge.services import Services
from lobu_actors.contract.errors import ApiError

_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",  # what their requests are known by over plain HTTP; see edge.origins
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}


def routes(_services: Services) -> Blueprint:
    blueprint = Blueprint("pages", __name__)

    @blueprint.get("/")
    async def chat() -> Response:
        return _response(load_assets()["chat.html"])

    @blueprint.get("/ops")
    async def operations() -> Response:
        return _response(load_assets()["ops.html"])

    @blueprint.get("/web/<name>")
    async def asset(name: str) -> Response:
        if (found := load_assets().get(name)) is None:
            raise Refusal(404, ApiError.NOT_FOUND, "There is nothing at this address.")
        return _response(found)

    return blueprint


def _response(asset: Asset) -> Response:
    headers = _HEADERS | {"ETag": asset.etag}
    if asset.etag in request.headers.get("If-None-Match", ""):
        return Response(b"", 304, headers)
    if request.accept_encodings["gzip"]:
        return Response(asset.compressed, 200, headers | {"Content-Encoding": "gzip"}, content_type=asset.content_type)
    return Response(asset.content, 200, headers, content_type=asset.content_type)

"""Puts the routes together: each at `/` and under `/lobu`, with limits and errors. Decides nothing else."""

from __future__ import annotations

from typing import Any

from quart import Response, request
from quart.routing import QuartMap
from quart_trio import QuartTrio
from werkzeug.routing import MapAdapter

from edge import metrics
from edge.asgi import Outermost
from edge.body import EdgeConnection, discard_body, request_class
from edge.links import ALIAS_PREFIX
from edge.request import opening
from edge.responses import refusal_of_any, refused
from edge.routes import blueprints, openai, worker
from edge.services import Services


class _Adapter(MapAdapter):
    def make_redirect_url(self, path_info: str, query_args: Any = None, domain_part: str | None = None) -> str:
        """To the folder that the path names, as seen from it: what a proxy in front has before it is not known here."""
        query = query_args or self.query_args
        return "./" + path_info.rstrip("/").rpartition("/")[2] + "/" + (f"?{query}" if query else "")


class _Map(QuartMap):
    """Goes by the path alone; Quart would fail at a Host that is no host name, outside of every error handler."""

    def bind_to_request(self, request: Any, subdomain: str | None, server_name: str | None) -> MapAdapter:
        query = request.query_string.decode()
        return _Adapter(self, "", request.root_path or "/", "", request.scheme, request.path, request.method, query)


class _Routed(QuartTrio):
    url_map_class = _Map


def create_app(services: Services) -> QuartTrio:
    """An ASGI app. It reads no environment, holds nothing that must be closed, and needs no lifespan."""
    settings = services.settings
    app = _Routed("edge", static_folder=None)
    app.asgi_http_class = EdgeConnection
    app.request_class = request_class(worker.snapshot_body(services.keys, settings))
    app.config["MAX_CONTENT_LENGTH"] = settings.max_message_bytes
    app.config["BODY_TIMEOUT"] = settings.body_seconds
    app.url_map.merge_slashes = False  # a redirect would lose a POST's body
    for blueprint in blueprints(services):
        app.register_blueprint(blueprint)
        app.register_blueprint(blueprint, url_prefix=ALIAS_PREFIX, name=f"{blueprint.name}_alias")

    @app.errorhandler(Exception)
    async def failed(error: Exception) -> Response:
        """Also for addresses that no blueprint has, and methods that it does not take."""
        return openai.refused(error) if openai.is_address(opening().path) else refused(refusal_of_any(error))

    @app.after_request
    async def finish(response: Response) -> Response:
        if response.status_code >= 400:
            await discard_body(settings.linger_seconds)
        route = request.url_rule.rule if request.url_rule is not None else "none"
        metrics.requests(route.removeprefix(ALIAS_PREFIX), response.status_code).inc()
        return response

    app.asgi_app = Outermost(app.asgi_app, settings.stalled_reader_seconds)  # type: ignore[method-assign]
    return app

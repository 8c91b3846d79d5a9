"""Puts the HTTP application together: routes at `/` and under `/lobu`, limits, errors. Decides nothing else."""

from __future__ import annotations

from typing import cast

from quart import Response, request
from quart_trio import QuartTrio

from edge import metrics
from edge.asgi import Outermost
from edge.body import EdgeConnection, discard_body, request_class
from edge.errors import refusal_of
from edge.links import ALIAS_PREFIX
from edge.request import opening
from edge.routes import blueprints, openai, worker
from edge.services import Services
from edge.settings import EdgeSettings
from edge.streams import Streams
from edge.tokens import JwtKeys
from edge.tracing import SpanSink
from lobu_actors.gateway.protocol import Gateway
from lobu_actors.gateway.worker_door import WorkerDoor
from lobu_actors.store.protocol import Store

_EXTENSION = "lobu"


def create_app(
    store: Store,
    gateway: Gateway,
    keys: JwtKeys,
    settings: EdgeSettings,
    streams: Streams | None = None,
    spans: SpanSink | None = None,
    worker_door: WorkerDoor | None = None,
) -> QuartTrio:
    """An ASGI app. It reads no environment, and holds nothing that must be closed; `edge.server.serve` runs it.

    `streams`: of the app that this one follows on, which counts on and ends them all. `spans`: where spans go, if
    anywhere. `worker_door`: where links of remote workers go; None: they are refused.
    """
    app = QuartTrio("edge", static_folder=None)
    app.asgi_http_class = EdgeConnection
    app.request_class = request_class(worker.snapshot_body(keys, settings))
    app.config["MAX_CONTENT_LENGTH"] = settings.max_message_bytes
    app.config["BODY_TIMEOUT"] = settings.body_seconds
    app.url_map.merge_slashes = False  # a redirect would lose a POST's body
    services = Services.build(store, gateway, keys, settings, streams or Streams(settings, spans), worker_door)
    app.extensions[_EXTENSION] = services
    for blueprint in blueprints(services):
        app.register_blueprint(blueprint)
        app.register_blueprint(blueprint, url_prefix=ALIAS_PREFIX, name=f"{blueprint.name}_alias")

    @app.errorhandler(Exception)
    async def failed(error: Exception) -> Response:
        """Also for addresses that no blueprint has, and methods that it does not take."""
        return openai.refused(error) if openai.is_address(opening().path) else refusal_of(error).response()

    @app.after_request
    async def finish(response: Response) -> Response:
        if response.status_code >= 400:
            await discard_body(settings.linger_seconds)
        route = request.url_rule.rule if request.url_rule is not None else "none"
        metrics.requests(route.removeprefix(ALIAS_PREFIX), response.status_code).inc()
        return response

    app.asgi_app = Outermost(app.asgi_app, settings.stalled_reader_seconds)  # type: ignore[method-assign]
    return app


def take_up(app: QuartTrio, settings: EdgeSettings) -> None:
    """Serve the requests that come from now on with `settings`; those under way end as they began.

    What is remembered (credentials, rates of callers) begins anew. Connections keep what they were made with.
    """
    services = services_of(app)
    services.streams.settings = settings
    fresh = create_app(
        services.store,
        services.gateway,
        services.keys,
        settings,
        services.streams,
        worker_door=services.worker_door,
    )
    app.asgi_app = fresh.asgi_app  # type: ignore[method-assign]
    app.extensions[_EXTENSION] = services_of(fresh)


def services_of(app: QuartTrio) -> Services:
    """What `create_app` made for `app`, or for the one that it took up last."""
    return cast(Services, app.extensions[_EXTENSION])

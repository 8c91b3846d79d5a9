"""The HTTP routes, one file a resource. Each reads a request, asks `Services`, and answers."""

from __future__ import annotations

from quart import Blueprint

from edge.routes import browsers, control, conversations, files, messages, operations, sessions, socket, stream, worker
from edge.services import Services


def blueprints(services: Services) -> list[Blueprint]:
    return [
        conversations.routes(services),
        browsers.routes(services),
        messages.routes(services),
        files.routes(services),
        stream.routes(services),
        socket.routes(services),
        control.routes(services),
        sessions.routes(services),
        worker.routes(services),
        operations.routes(services),
    ]

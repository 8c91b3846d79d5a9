"""The HTTP routes, one file a resource. Each reads a request, asks `Services`, and answers."""

from __future__ import annotations

from quart import Blueprint

from edge.routes import control, conversations, messages, operations, stream
from edge.services import Services


def blueprints(services: Services) -> list[Blueprint]:
    return [
        conversations.routes(services),
        messages.routes(services),
        stream.routes(services),
        control.routes(services),
        operations.routes(services),
    ]

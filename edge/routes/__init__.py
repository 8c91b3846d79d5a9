"""The HTTP routes, one file a resource. Each reads a request, asks `Services`, and answers."""

from __future__ import annotations

from quart import Blueprint

from edge.routes import (
    ag_ui,
    browsers,
    control,
    conversations,
    files,
    house,
    listings,
    messages,
    openai,
    operations,
    pages,
    sessions,
    socket,
    stream,
    timelines,
    ui_chat,
    worker,
    worker_link,
)
from edge.services import Services


def blueprints(services: Services) -> list[Blueprint]:
    return [
        conversations.routes(services),
        browsers.routes(services),
        listings.routes(services),
        messages.routes(services),
        files.routes(services),
        stream.routes(services),
        openai.routes(services),
        ui_chat.routes(services),
        ag_ui.routes(services),
        socket.routes(services),
        control.routes(services),
        timelines.routes(services),
        sessions.routes(services),
        worker.routes(services),
        worker_link.routes(services),
        operations.routes(services),
        house.routes(services),
        pages.routes(services),
    ]

"""What the server tells an administrator of its hosts from inside: one look at its operations page's stream."""

from __future__ import annotations

import json
from typing import Any

import httpx

from lobu_actors.client.http import new_http
from supervisor.config.gateway import GatewayPlace

PATH = "/api/v1/ops/events"
EVENT = "event: house"


async def look_inside(place: GatewayPlace) -> dict[str, Any] | None:
    """None: it does not tell, whatever the reason. Callers bound it."""
    try:
        async with new_http(place.url, place.key) as http, http.stream("GET", PATH) as answer:
            if answer.status_code != httpx.codes.OK:
                return None
            told = False
            async for line in answer.aiter_lines():
                told = told or line == EVENT
                if told and line.startswith("data: "):
                    found = json.loads(line.removeprefix("data: "))
                    return found if isinstance(found, dict) else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        pass
    return None

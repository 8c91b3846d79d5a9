"""The part of the OpenAPI document that is about timelines. Pure data."""

from __future__ import annotations

from typing import Any


def paths(key: str, key_parameter: dict[str, Any], responses: dict[str, Any]) -> dict[str, Any]:
    """`key`: the conversation's address; `responses`: the refusals."""
    answer = {"application/json": {"schema": {"$ref": "#/components/schemas/Timeline"}}}
    turn = {
        "name": "turn_id",
        "in": "path",
        "required": True,
        "description": "The `turnId` of the receipt, or the message's id.",
        "schema": {"type": "string"},
    }
    operation = {
        "operationId": "showTimeline",
        "summary": "Show when a turn did what",
        "description": "From acceptance to delivery, in order; names and codes, never what was written. `delivered` is "
        "known to the server that delivered, for the newest turns.",
        "responses": {"200": {"description": "Done.", "content": answer}} | responses,
    }
    return {f"{key}/turns/{{turn_id}}/timeline": {"parameters": [key_parameter, turn], "get": operation}}

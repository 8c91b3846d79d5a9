"""What the description of every route is put together from. Pure data."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

KEY = "/api/v1/agents/{key}"

STATUS_TEXT = {
    101: "The connection is a WebSocket now.",
    200: "Done.",
    201: "Opened.",
    202: "Accepted; what follows is told by events.",
    204: "The conversation is closed and everything of it was read.",
    400: "The request is not right.",
    401: "No valid credentials.",
    403: "These credentials do not open this.",
    404: "There is no such thing for these credentials.",
    408: "The body did not arrive in time.",
    409: "Not in this state.",
    413: "The body is too large.",
    415: "The body is of another type, or in a coding.",
    426: "This address takes WebSockets.",
    429: "Too many; see Retry-After.",
    503: "Not now; see Retry-After.",
}


def refusals(*statuses: int) -> Json:
    reference = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {str(status): {"description": STATUS_TEXT[status], "content": reference} for status in statuses}


def answer(schema: str, status: int = 200) -> Json:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {str(status): {"description": STATUS_TEXT[status], "content": content}}


def body(schema: str, *, required: bool = True) -> Json:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"requestBody": {"required": required, "content": content}}


def path_parameter(name: str, description: str) -> Json:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}


def query(name: str, description: str, *, where: str = "query") -> Json:
    return {"name": name, "in": where, "required": False, "description": description, "schema": {"type": "string"}}


KEY_PARAMETER = path_parameter("key", "The conversation id, as the opening answered it in `agentId`.")
OPEN: Json = {"security": []}


def operation(name: str, summary: str, description: str, responses: Json, **further: Any) -> Json:
    return {"operationId": name, "summary": summary, "description": description, **further, "responses": responses}

"""The description of the addresses that speak other protocols. Pure data, merged by `edge.openapi`.

Bodies and answers are those protocols' own; here stands what of them is read and written.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_FRAME: Json = {"type": "object", "required": ["data"], "properties": {"data": _TEXT, "event": _TEXT}}
_NAMES = (
    "The conversation's name or id, which makes one when there is none; as `X-OpenWebUI-Chat-Id`, `X-Session-Id` and "
    "`Session-Id` do, in this order. Without any of them the conversation is a new one, told in the same header of the "
    "answer."
)
_ERROR_TEXT = {
    400: "The request is not right, or the agent refused the message.",
    401: "No valid credentials.",
    403: "These credentials do not open this.",
    404: "There is no such agent or conversation for these credentials.",
    408: "The body did not arrive in time.",
    409: "Not in this state, or the turn was cancelled.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "Too many, or the provider's quota is used up.",
    500: "The turn failed.",
    502: "The turn failed.",
    503: "Not now; see Retry-After.",
}
_REFUSED = (400, 401, 403, 404, 408, 409, 413, 415, 429, 503)


def _object(required: list[str], **properties: Json) -> Json:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": True}


_MESSAGES: Json = {"type": "array", "minItems": 1, "items": {"type": "object"}}
DIALECT_SCHEMAS: dict[str, Json] = {
    "OpenAIError": _object(
        ["error"],
        error=_object(
            ["message", "type", "param", "code"],
            message=_TEXT,
            type=_TEXT,
            param={"type": ["string", "null"]},
            code=_TEXT,
        ),
    ),
    "OpenAIModel": _object(
        ["id", "object", "created", "owned_by"],
        id=_TEXT,
        object={"const": "model"},
        created={"type": "integer"},
        owned_by=_TEXT,
    ),
    "OpenAIModels": _object(
        ["object", "data"],
        object={"const": "list"},
        data={"type": "array", "items": {"$ref": "#/components/schemas/OpenAIModel"}},
    ),
    "ChatCompletionRequest": _object(
        ["model", "messages"],
        model=_TEXT | {"description": "An agent's id."},
        messages=_MESSAGES,
        stream={"type": "boolean"},
        n={"const": 1},
    ),
    "ChatCompletion": _object(
        ["id", "object", "created", "model", "choices", "usage"], object={"const": "chat.completion"}
    ),
    "ResponseRequest": _object(
        ["model", "input"],
        model=_TEXT | {"description": "An agent's id."},
        input={"anyOf": [_TEXT, _MESSAGES]},
        stream={"type": "boolean"},
        previous_response_id=_TEXT,
    ),
    "Response": _object(["id", "object", "created_at", "model", "output", "status"], object={"const": "response"}),
    "UiChatRequest": _object(
        ["id", "messages"],
        id=_TEXT,
        messages=_MESSAGES,
        trigger=_TEXT,
        messageId={"type": ["string", "null"]},
        tools={"type": "array", "items": {"type": "object"}},
    ),
    "AgUiRun": _object(
        ["threadId", "runId", "messages"],
        threadId=_TEXT,
        runId=_TEXT,
        messages={"type": "array", "items": {"type": "object"}},
        tools={"type": "array", "items": {"type": "object"}},
        resume={"type": "array", "items": {"type": "object"}},
    ),
}


def dialects() -> Json:
    return _models() | _openai() | _ui() | _ag_ui()


def _models() -> Json:
    return {
        "/v1/models": {
            "get": {
                "operationId": "listModels",
                "summary": "List agents as OpenAI's models",
                "responses": _json("OpenAIModels") | _refused(401, 403, 503),
            }
        },
        "/v1/models/{model}": {
            "parameters": [_path("model", "An agent's id.")],
            "get": {
                "operationId": "showModel",
                "summary": "Show an agent as OpenAI's model",
                "responses": _json("OpenAIModel") | _refused(401, 403, 404, 503),
            },
        },
    }


def _openai() -> Json:
    headers = [
        _header("X-Lobu-Conversation", _NAMES),
        _header("Idempotency-Key", "The same key again gives the same turn, and never a second one."),
    ]
    chunks = 'Chunks of the reply, then `[DONE]`; or a frame `{"error": …}`, and nothing behind it.'
    events = "Events, the last of them `response.completed`; or `error` and `response.failed`."
    return {
        "/v1/chat/completions": {
            "post": {
                "operationId": "createChatCompletion",
                "summary": "Send a message as OpenAI's chat completion",
                "description": "What stands behind the assistant's last message is new; what stands before it is "
                "carried into a conversation that is new itself. A client that hangs up cancels its turn. When the "
                "agent asks a question, that ends the reply, and the next message in the conversation is the answer.",
                "parameters": headers,
                **_body("ChatCompletionRequest"),
                "responses": _either("ChatCompletion", chunks) | _refused(*_REFUSED, 500, 502),
            }
        },
        "/v1/responses": {
            "post": {
                "operationId": "createResponse",
                "summary": "Send a message as OpenAI's Responses do",
                "description": "As for chat completions; `conversation` names the conversation too, and "
                "`previous_response_id` goes on with that response's.",
                "parameters": headers,
                **_body("ResponseRequest"),
                "responses": _either("Response", events) | _refused(*_REFUSED, 500, 502),
            }
        },
    }


def _ui() -> Json:
    chat = "/api/v1/ui/{agent_id}/chat"
    agent, name = _path("agent_id", "An agent's id."), _path("chat_id", "The chat's id, as the page has it.")
    parts = "Parts of the message, from `start` to `[DONE]`."
    none = {"204": {"description": "No reply goes on in this chat."}}
    return {
        chat: {
            "parameters": [agent],
            "post": {
                "operationId": "sendUiMessage",
                "summary": "Send a message of Vercel's AI SDK",
                "description": "Answers a UI message stream, version v1. A page that drops it cancels nothing.",
                **_body("UiChatRequest"),
                "responses": _stream(parts) | _native(400, 401, 403, 404, 409, 413, 415, 503),
            },
        },
        f"{chat}/{{chat_id}}/stream": {
            "parameters": [agent, name],
            "get": {
                "operationId": "resumeUiStream",
                "summary": "Read again the reply that goes on",
                "description": "All of it, from `start`.",
                "responses": _stream(parts) | none | _native(401, 403, 404, 503),
            },
        },
        f"{chat}/{{chat_id}}/stop": {
            "parameters": [agent, name],
            "post": {
                "operationId": "stopUiChat",
                "summary": "Cancel what a chat is owed",
                "responses": _json("CancelReceipt", "202") | _native(401, 403, 404, 503),
            },
        },
    }


def _ag_ui() -> Json:
    return {
        "/api/v1/ag-ui/{agent_id}": {
            "parameters": [_path("agent_id", "An agent's id.")],
            "post": {
                "operationId": "runAgUi",
                "summary": "Run an agent over AG-UI",
                "description": "`threadId` names the conversation, and the same `runId` again gives the same turn. A "
                "question is an interrupt, which `resume` answers. A client that hangs up cancels its turn.",
                **_body("AgUiRun"),
                "responses": _stream("Events, from `RUN_STARTED` to one `RUN_FINISHED` or `RUN_ERROR`.")
                | _native(400, 401, 403, 404, 409, 413, 415, 503),
            },
        },
    }


def _reference(schema: str) -> Json:
    return {"schema": {"$ref": f"#/components/schemas/{schema}"}}


def _json(schema: str, status: str = "200") -> Json:
    return {status: {"description": "Done.", "content": {"application/json": _reference(schema)}}}


def _stream(description: str) -> Json:
    return {"200": {"description": description, "content": {"text/event-stream": {"schema": _FRAME}}}}


def _either(schema: str, description: str) -> Json:
    content = {"application/json": _reference(schema), "text/event-stream": {"schema": _FRAME}}
    return {"200": {"description": f"In one piece, or with `stream`: {description}", "content": content}}


def _refused(*statuses: int) -> Json:
    return {str(status): _error(status, "OpenAIError") for status in (*statuses, 429)}


def _native(*statuses: int) -> Json:
    return {str(status): _error(status, "Error") for status in statuses}


def _error(status: int, schema: str) -> Json:
    return {"description": _ERROR_TEXT[status], "content": {"application/json": _reference(schema)}}


def _body(schema: str) -> Json:
    return {"requestBody": {"required": True, "content": {"application/json": _reference(schema)}}}


def _path(name: str, description: str) -> Json:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": _TEXT}


def _header(name: str, description: str) -> Json:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": _TEXT}

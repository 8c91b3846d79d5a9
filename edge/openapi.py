"""The interface's own description, OpenAPI 3.1, written by hand. A test compares it with the routes: all, and no more.

Pure data; the served document and the readable page are made from it once.
"""

from __future__ import annotations

from typing import Any

from edge.openapi_dialects import DIALECT_SCHEMAS, dialects
from edge.openapi_schemas import SCHEMAS, SSE_EVENTS
from lobu_actors.contract.errors import ApiError

Json = dict[str, Any]

_KEY = "/api/v1/agents/{key}"

_STATUS_TEXT = {
    101: "The connection is a WebSocket now.",
    200: "Done.",
    201: "Opened.",
    202: "Accepted; what follows is told by events.",
    204: "The conversation is closed and everything of it was read.",
    400: "The request is not right.",
    401: "No valid credentials.",
    403: "These credentials do not open this.",
    404: "There is no such thing for these credentials.",
    409: "Not in this state.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    426: "This address takes WebSockets.",
    429: "Too many; see Retry-After.",
    503: "Not now; see Retry-After.",
}


def _refusals(*statuses: int) -> Json:
    reference = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {str(status): {"description": _STATUS_TEXT[status], "content": reference} for status in statuses}


def _answer(schema: str, status: int = 200) -> Json:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {str(status): {"description": _STATUS_TEXT[status], "content": content}}


def _body(schema: str, *, required: bool = True) -> Json:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"requestBody": {"required": required, "content": content}}


def _path_parameter(name: str, description: str) -> Json:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}


def _query(name: str, description: str, *, where: str = "query") -> Json:
    return {"name": name, "in": where, "required": False, "description": description, "schema": {"type": "string"}}


_KEY_PARAMETER = _path_parameter("key", "The conversation id, as the opening answered it in `agentId`.")
_OPEN: Json = {"security": []}


def _conversations() -> Json:
    return {
        "/api/v1/agents": {
            "post": {
                "operationId": "openConversation",
                "summary": "Open or resume a conversation",
                "description": "Needs an API key. `dryRun` checks everything and answers 200 without writing.",
                **_body("OpenRequest", required=False),
                "responses": _answer("Opened", 201)
                | _answer("DryRun")
                | _refusals(400, 401, 403, 404, 409, 413, 415, 503),
            }
        },
        _KEY: {
            "parameters": [_KEY_PARAMETER],
            "get": {
                "operationId": "showConversation",
                "summary": "Show a conversation's state",
                "responses": _answer("Shown") | _refusals(401, 403, 404, 503),
            },
            "delete": {
                "operationId": "endConversation",
                "summary": "End a conversation",
                "description": "Cancels what runs; its events end with `closed`. Repeating it changes nothing.",
                "responses": _answer("Ended") | _refusals(401, 403, 404, 503),
            },
        },
    }


def _messages() -> Json:
    return {
        f"{_KEY}/messages": {
            "parameters": [_KEY_PARAMETER],
            "post": {
                "operationId": "sendMessage",
                "summary": "Send a message",
                "description": "Answers after the message is durable; from then on one terminal event is owed. The "
                "same `messageId` again gets the same answer and nothing new. After a 503, send again with the "
                "`details.messageId` of the answer.",
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/MessageRequest"}},
                        "multipart/form-data": {"schema": {"$ref": "#/components/schemas/MessageForm"}},
                    },
                },
                "responses": _answer("Receipt") | _refusals(400, 401, 403, 404, 409, 413, 415, 429, 503),
            },
        },
        f"{_KEY}/cancel": {
            "parameters": [_KEY_PARAMETER],
            "post": {
                "operationId": "cancelMessages",
                "summary": "Cancel one message, or all that are owed",
                "description": "A staged receipt: `accepted` now, then `cancel` events and the terminal `cancelled`; "
                "or `nothing-to-cancel` when everything meant had ended before.",
                **_body("CancelRequest", required=False),
                "responses": _answer("CancelReceipt", 202) | _refusals(400, 401, 403, 404, 413, 415, 503),
            },
        },
        f"{_KEY}/questions/{{question_id}}/answer": {
            "parameters": [_KEY_PARAMETER, _path_parameter("question_id", "The `questionId` of the event.")],
            "post": {
                "operationId": "answerQuestion",
                "summary": "Answer a worker's question",
                "description": "The first answer wins.",
                **_body("AnswerRequest"),
                "responses": _answer("Success") | _refusals(400, 401, 403, 404, 409, 413, 415, 503),
            },
        },
    }


def _files() -> Json:
    content = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    download = {"description": "The file, as a download under its name and with its type.", "content": content}
    return {
        f"{_KEY}/files": {
            "parameters": [_KEY_PARAMETER],
            "get": {
                "operationId": "listFiles",
                "summary": "List a conversation's files",
                "description": "What came with messages (`in`) and what workers left in `output/` when they completed "
                "(`out`), newest first.",
                "parameters": [_query("limit", "At most so many; 100 when absent.")],
                "responses": _answer("Files") | _refusals(400, 401, 403, 404, 503),
            },
        },
        f"{_KEY}/files/{{file_id}}": {
            "parameters": [_KEY_PARAMETER, _path_parameter("file_id", "The `fileId` of the list or of `complete`.")],
            "get": {
                "operationId": "downloadFile",
                "summary": "Download a file",
                "responses": {"200": download} | _refusals(401, 403, 404, 503),
            },
        },
    }


_FOLLOWING = [
    _query("since", "Where to go on: an id of an earlier event."),
    _query("messageId", "End the stream behind this message's terminal event."),
    _query("Last-Event-ID", "As `since`, which it overrules.", where="header"),
]


def _stream() -> Json:
    stream = {"description": _events_text(), "content": {"text/event-stream": {"schema": {"type": "string"}}}}
    return {
        f"{_KEY}/events": {
            "parameters": [_KEY_PARAMETER],
            "get": {
                "operationId": "readEvents",
                "summary": "Read the event stream",
                "description": "Server-Sent Events. From any id ever sent, a reader gets exactly what it lacks.",
                "security": [{"bearer": []}, {"cookie": []}, {"ticket": []}],
                "parameters": _FOLLOWING,
                "responses": {"200": stream, "204": {"description": _STATUS_TEXT[204]}}
                | _refusals(400, 401, 403, 404, 429, 503),
            },
        },
        f"{_KEY}/socket": {
            "parameters": [_KEY_PARAMETER],
            "get": _operation(
                "openSocket",
                "Follow a conversation, send and answer over a WebSocket",
                "Text messages: `{event, id?, data}` out, `{call, ref?, ...}` in. See docs/websocket.md.",
                {"101": {"description": _STATUS_TEXT[101]}} | _refusals(400, 401, 403, 404, 426, 503),
                parameters=_FOLLOWING,
                security=[{"bearer": []}, {"cookie": []}, {"ticket": []}],
            ),
        },
        f"{_KEY}/events/ticket": {
            "parameters": [_KEY_PARAMETER],
            "post": _operation(
                "getTicket",
                "Get a ticket for the event stream",
                "For readers that cannot send headers: open `events?ticket=` or `socket?ticket=` with it, once and "
                "within seconds. What "
                "was used or has expired is a 401; a reader that lost its stream asks for another.",
                _answer("Ticket") | _refusals(401, 403, 404, 503),
            ),
        },
    }


def _operation(name: str, summary: str, description: str, responses: Json, **further: Any) -> Json:
    return {"operationId": name, "summary": summary, "description": description, **further, "responses": responses}


def _browsers() -> Json:
    return {
        "/api/v1/session": {
            "post": _operation(
                "beginBrowserSession",
                "Get a cookie for a browser",
                "For a Bearer API key or token; the cookie opens what that does, and does not outlive it. With the "
                "cookie, every request needs this server's own `Origin`, or for GET `Sec-Fetch-Site: same-origin`.",
                _answer("BrowserSession") | _refusals(401, 503),
                security=[{"bearer": []}],
            ),
            "delete": {
                **_OPEN,
                **_operation(
                    "endBrowserSession",
                    "Forget the cookie",
                    "Repeating it changes nothing.",
                    _answer("Success") | _refusals(403),
                ),
            },
        },
    }


def _sessions() -> Json:
    paging = [
        _query("cursor", "`nextCursor` of an earlier answer: what came behind it. Good until the session is reset."),
        _query("limit", "How many messages at most: 1 to 200, 50 if absent."),
    ]
    return {
        f"{_KEY}/session/messages": {
            "parameters": [_KEY_PARAMETER],
            "get": _operation(
                "readSessionMessages",
                "Read what was said",
                "The messages of the present session, oldest first; while a run goes on, with what its worker has "
                "written so far.",
                _answer("SessionMessages") | _refusals(400, 401, 403, 404, 409, 503),
                parameters=paging,
            ),
        },
        f"{_KEY}/session/stats": {
            "parameters": [_KEY_PARAMETER],
            "get": _operation(
                "readSessionStats",
                "Count what was said",
                "Numbers of the present session; tokens as far as the worker noted them.",
                _answer("SessionStats") | _refusals(401, 403, 404, 409, 503),
            ),
        },
        f"{_KEY}/reset": {
            "parameters": [_KEY_PARAMETER],
            "post": _operation(
                "resetSession",
                "Begin a new session",
                "The same as the message `/new`: what runs is cancelled, what waits is kept, the session and its "
                "snapshots are deleted. An `ephemeral` event and the message's own `complete` tell that it is done.",
                _answer("Receipt") | _refusals(400, 401, 403, 404, 409, 413, 415, 429, 503),
                **_body("ResetRequest", required=False),
            ),
        },
    }


def _worker() -> Json:
    run: Json = {"security": [{"run": []}]}
    return {
        "/worker/link": {
            "get": _operation(
                "joinAsWorker",
                "Join as a remote worker, over a WebSocket",
                "With a key of role `worker`. See docs/remote-workers.md.",
                {"101": {"description": _STATUS_TEXT[101]}} | _refusals(401, 426, 429, 503),
                security=[{"bearer": []}],
            ),
        },
        "/worker/transcript/snapshot": {
            "get": _operation(
                "readSnapshot",
                "Read the conversation's snapshot",
                "For workers that keep a session file of their own, as the other two.",
                _answer("Snapshot") | _refusals(401, 403, 404, 409, 503),
                **run,
            ),
            "post": _operation(
                "postSnapshot",
                "Keep a snapshot for the end of the run",
                "To be sent before the `complete` frame, with the run's own token. It becomes the conversation's "
                "snapshot in the commit of the run's reply, or never.",
                _answer("SnapshotKept") | _refusals(400, 401, 403, 409, 413, 415, 503),
                **run,
                **_body("SnapshotRequest"),
            ),
            "delete": _operation(
                "deleteSnapshots",
                "Delete the conversation's snapshots",
                "Repeating it deletes nothing.",
                _answer("SnapshotsDeleted") | _refusals(401, 403, 503),
                **run,
            ),
        },
    }


def _events_text() -> str:
    lines = [f"- `{name}`: {text}" for name, text in SSE_EVENTS.items()]
    return "\n".join(["Events, each with one JSON object as data:", *lines])


def _operations() -> Json:
    def plain(kind: str, description: str, of: str = "string") -> Json:
        return {"200": {"description": description, "content": {kind: {"schema": {"type": of}}}}}

    def anybody(name: str, summary: str, responses: Json) -> Json:
        return {"get": {**_OPEN, "operationId": name, "summary": summary, "responses": responses}}

    ok = _answer("Health")
    described = plain("application/json", "OpenAPI 3.1.", "object")
    return {
        "/health/live": anybody("live", "Is the process alive?", ok),
        "/health/ready": anybody("ready", "Does it take messages?", ok | _refusals(503)),
        "/metrics": anybody("metrics", "Metrics", plain("text/plain", "Prometheus text.")),
        "/openapi.json": anybody("openapi", "This document", described),
        "/docs": anybody("docs", "This document, to be read", plain("text/html", "A page.")),
    }


def _all_paths() -> Json:
    """Whatever takes credentials may answer that they are used too fast."""
    counted = _conversations() | _messages() | _files() | _sessions() | _stream() | _browsers() | dialects()
    for item in counted.values():
        for name, operation in item.items():
            if name != "parameters" and operation.get("security") != []:
                operation["responses"] = _refusals(429) | operation["responses"]
    return counted | _worker() | _operations()


def document() -> Json:
    """A fresh OpenAPI document as plain JSON values."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lobu conversations",
            "version": "1",
            "description": "Every address is served under `/lobu` too. Failures have the form of `Error`; "
            f"its codes are {', '.join(f'`{code}`' for code in ApiError)}.",
        },
        "servers": [{"url": "/"}, {"url": "/lobu"}],
        "security": [{"bearer": []}, {"cookie": []}],
        "paths": _all_paths(),
        "components": {
            "schemas": SCHEMAS | DIALECT_SCHEMAS,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key (`lobu_…`), or a conversation's token as its opening answered it.",
                },
                "cookie": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "lobu_session",
                    "description": "A browser's session. A Bearer credential wins over it.",
                },
                "ticket": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "ticket",
                    "description": "Opens one conversation's stream, once.",
                },
                "run": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The `runToken` of a worker's `turn` frame.",
                },
            },
        },
    }

"""The interface's own description, OpenAPI 3.1, written by hand. A test compares it with the routes: all, and no more.

Pure data; the served document and the readable page are made from it once.
"""

from __future__ import annotations

from typing import Any

from edge import openapi_timeline
from edge.openapi_dialects import DIALECT_SCHEMAS, dialects
from edge.openapi_listings import listings, pages
from edge.openapi_parts import (
    KEY,
    KEY_PARAMETER,
    OPEN,
    STATUS_TEXT,
    answer,
    body,
    operation,
    path_parameter,
    query,
    refusals,
)
from edge.openapi_schemas import SCHEMAS, SSE_EVENTS
from lobu_actors.contract.errors import ApiError

Json = dict[str, Any]


def _conversations() -> Json:
    return {
        "/api/v1/agents": {
            "post": {
                "operationId": "openConversation",
                "summary": "Open or resume a conversation",
                "description": "Needs an API key. `dryRun` checks everything and answers 200 without writing.",
                **body("OpenRequest", required=False),
                "responses": answer("Opened", 201)
                | answer("DryRun")
                | refusals(400, 401, 403, 404, 409, 413, 415, 503),
            }
        },
        KEY: {
            "parameters": [KEY_PARAMETER],
            "get": {
                "operationId": "showConversation",
                "summary": "Show a conversation's state",
                "responses": answer("Shown") | refusals(401, 403, 404, 503),
            },
            "delete": {
                "operationId": "endConversation",
                "summary": "End a conversation",
                "description": "Cancels what runs; its events end with `closed`. Repeating it changes nothing.",
                "responses": answer("Ended") | refusals(401, 403, 404, 503),
            },
        },
    }


def _messages() -> Json:
    return {
        f"{KEY}/messages": {
            "parameters": [KEY_PARAMETER],
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
                "responses": answer("Receipt") | refusals(400, 401, 403, 404, 409, 413, 415, 429, 503),
            },
        },
        f"{KEY}/cancel": {
            "parameters": [KEY_PARAMETER],
            "post": {
                "operationId": "cancelMessages",
                "summary": "Cancel one message, or all that are owed",
                "description": "A staged receipt: `accepted` now, then `cancel` events and the terminal `cancelled`; "
                "or `nothing-to-cancel` when everything meant had ended before.",
                **body("CancelRequest", required=False),
                "responses": answer("CancelReceipt", 202) | refusals(400, 401, 403, 404, 413, 415, 503),
            },
        },
        f"{KEY}/questions/{{question_id}}/answer": {
            "parameters": [KEY_PARAMETER, path_parameter("question_id", "The `questionId` of the event.")],
            "post": {
                "operationId": "answerQuestion",
                "summary": "Answer a worker's question",
                "description": "The first answer wins.",
                **body("AnswerRequest"),
                "responses": answer("Success") | refusals(400, 401, 403, 404, 409, 413, 415, 503),
            },
        },
    }


def _files() -> Json:
    content = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    download = {"description": "The file, as a download under its name and with its type.", "content": content}
    return {
        f"{KEY}/files": {
            "parameters": [KEY_PARAMETER],
            "get": {
                "operationId": "listFiles",
                "summary": "List a conversation's files",
                "description": "What came with messages (`in`) and what workers left in `output/` when they completed "
                "(`out`), newest first.",
                "parameters": [query("limit", "At most so many; 100 when absent.")],
                "responses": answer("Files") | refusals(400, 401, 403, 404, 503),
            },
        },
        f"{KEY}/files/{{file_id}}": {
            "parameters": [KEY_PARAMETER, path_parameter("file_id", "The `fileId` of the list or of `complete`.")],
            "get": {
                "operationId": "downloadFile",
                "summary": "Download a file",
                "responses": {"200": download} | refusals(401, 403, 404, 503),
            },
        },
    }


_FOLLOWING = [
    query("since", "Where to go on: an id of an earlier event."),
    query("messageId", "End the stream behind this message's terminal event."),
    query("Last-Event-ID", "As `since`, which it overrules.", where="header"),
]


def _stream() -> Json:
    stream = {"description": _events_text(), "content": {"text/event-stream": {"schema": {"type": "string"}}}}
    return {
        f"{KEY}/events": {
            "parameters": [KEY_PARAMETER],
            "get": {
                "operationId": "readEvents",
                "summary": "Read the event stream",
                "description": "Server-Sent Events. From any id ever sent, a reader gets exactly what it lacks.",
                "security": [{"bearer": []}, {"cookie": []}, {"ticket": []}],
                "parameters": _FOLLOWING,
                "responses": {"200": stream, "204": {"description": STATUS_TEXT[204]}}
                | refusals(400, 401, 403, 404, 429, 503),
            },
        },
        f"{KEY}/socket": {
            "parameters": [KEY_PARAMETER],
            "get": operation(
                "openSocket",
                "Follow a conversation, send and answer over a WebSocket",
                "Text messages: `{event, id?, data}` out, `{call, ref?, ...}` in. See docs/websocket.md.",
                {"101": {"description": STATUS_TEXT[101]}} | refusals(400, 401, 403, 404, 426, 503),
                parameters=_FOLLOWING,
                security=[{"bearer": []}, {"cookie": []}, {"ticket": []}],
            ),
        },
        f"{KEY}/events/ticket": {
            "parameters": [KEY_PARAMETER],
            "post": operation(
                "getTicket",
                "Get a ticket for the event stream",
                "For readers that cannot send headers: open `events?ticket=` or `socket?ticket=` with it, once and "
                "within seconds. What "
                "was used or has expired is a 401; a reader that lost its stream asks for another.",
                answer("Ticket") | refusals(401, 403, 404, 503),
            ),
        },
    }


def _browsers() -> Json:
    return {
        "/api/v1/session": {
            "post": operation(
                "beginBrowserSession",
                "Get a cookie for a browser",
                "For a Bearer API key or token; the cookie opens what that does, and does not outlive it. With the "
                "cookie, every request needs this server's own `Origin`, or for GET `Sec-Fetch-Site: same-origin`, or "
                "without both an own `Referer`.",
                answer("BrowserSession") | refusals(401, 503),
                security=[{"bearer": []}],
            ),
            "delete": {
                **OPEN,
                **operation(
                    "endBrowserSession",
                    "Forget the cookie",
                    "Repeating it changes nothing.",
                    answer("Success") | refusals(403),
                ),
            },
        },
    }


def _sessions() -> Json:
    paging = [
        query("cursor", "`nextCursor` of an earlier answer: what came behind it. Good until the session is reset."),
        query("limit", "How many messages at most: 1 to 200, 50 if absent."),
    ]
    return {
        f"{KEY}/session/messages": {
            "parameters": [KEY_PARAMETER],
            "get": operation(
                "readSessionMessages",
                "Read what was said",
                "The messages of the present session, oldest first; while a run goes on, with what its worker has "
                "written so far.",
                answer("SessionMessages") | refusals(400, 401, 403, 404, 409, 503),
                parameters=paging,
            ),
        },
        f"{KEY}/session/stats": {
            "parameters": [KEY_PARAMETER],
            "get": operation(
                "readSessionStats",
                "Count what was said",
                "Numbers of the present session; tokens as far as the worker noted them.",
                answer("SessionStats") | refusals(401, 403, 404, 409, 503),
            ),
        },
        f"{KEY}/reset": {
            "parameters": [KEY_PARAMETER],
            "post": operation(
                "resetSession",
                "Begin a new session",
                "The same as the message `/new`: what runs is cancelled, what waits is kept, the session and its "
                "snapshots are deleted. An `ephemeral` event and the message's own `complete` tell that it is done.",
                answer("Receipt") | refusals(400, 401, 403, 404, 409, 413, 415, 429, 503),
                **body("ResetRequest", required=False),
            ),
        },
    }


def _worker() -> Json:
    run: Json = {"security": [{"run": []}]}
    return {
        "/worker/link": {
            "get": operation(
                "joinAsWorker",
                "Join as a remote worker, over a WebSocket",
                "With a key of role `worker`. See docs/remote-workers.md.",
                {"101": {"description": STATUS_TEXT[101]}} | refusals(401, 426, 429, 503),
                security=[{"bearer": []}],
            ),
        },
        "/worker/transcript/snapshot": {
            "get": operation(
                "readSnapshot",
                "Read the conversation's snapshot",
                "For workers that keep a session file of their own, as the other two.",
                answer("Snapshot") | refusals(401, 403, 404, 409, 503),
                **run,
            ),
            "post": operation(
                "postSnapshot",
                "Keep a snapshot for the end of the run",
                "To be sent before the `complete` frame, with the run's own token. It becomes the conversation's "
                "snapshot in the commit of the run's reply, or never.",
                answer("SnapshotKept") | refusals(400, 401, 403, 409, 413, 415, 503),
                **run,
                **body("SnapshotRequest"),
            ),
            "delete": operation(
                "deleteSnapshots",
                "Delete the conversation's snapshots",
                "Repeating it deletes nothing.",
                answer("SnapshotsDeleted") | refusals(401, 403, 503),
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
        return {"get": {**OPEN, "operationId": name, "summary": summary, "responses": responses}}

    ok = answer("Health")
    described = plain("application/json", "OpenAPI 3.1.", "object")
    return {
        "/health/live": anybody("live", "Is the process alive?", ok),
        "/health/ready": anybody("ready", "Does it take messages?", ok | refusals(503)),
        "/metrics": anybody("metrics", "Metrics", plain("text/plain", "Prometheus text.")),
        "/openapi.json": anybody("openapi", "This document", described),
        "/docs": anybody("docs", "This document, to be read", plain("text/html", "A page.")),
    }


def _all_paths() -> Json:
    """Whatever takes credentials may answer that they are used too fast; a body, that it came too late."""
    timelines = openapi_timeline.paths(KEY, KEY_PARAMETER, refusals(401, 403, 404, 503))
    parts = (
        _conversations(), listings(), _messages(), _files(), _sessions(), _stream(), _browsers(), dialects(), timelines
    )  # fmt: skip
    counted: Json = {}
    for part in parts:
        for path, item in part.items():
            counted[path] = counted.get(path, {}) | item
    for item in counted.values():
        for name, described in item.items():
            if name != "parameters" and described.get("security") != []:
                described["responses"] = refusals(429) | described["responses"]
    paths = counted | _worker() | _operations() | pages()
    for item in paths.values():
        for name, described in item.items():
            if name != "parameters" and "requestBody" in described:
                described["responses"] = refusals(408) | described["responses"]
    return paths


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

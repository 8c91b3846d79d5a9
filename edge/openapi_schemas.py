"""The shapes of requests, answers and events, as the OpenAPI document shows them. Pure data."""

from __future__ import annotations

from typing import Any

from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.states import OnBusy
from lobu_actors.contract.timeline import Moment

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_FLAG: Json = {"type": "boolean"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_EPOCH_MS: Json = {"type": "integer", "description": "Milliseconds since 1970."}


def _object(required: list[str], **properties: Json) -> Json:
    return {"type": "object", "required": required, "properties": properties}


def _success(**properties: Json) -> Json:
    return _object(["success", *properties], success={"const": True}, **properties)


def _or_null(kind: Json) -> Json:
    return kind | {"type": [kind["type"], "null"]}


SCHEMAS: dict[str, Json] = {
    "Error": _object(
        ["success", "error", "code"],
        success={"const": False},
        error=_TEXT | {"description": "One sentence."},
        code={"type": "string", "enum": [code.value for code in ApiError]},
        details={"type": "object"},
    ),
    "Success": _success(),
    "OpenRequest": _object(
        [],
        agentId=_TEXT | {"description": "Absent: the organization's default agent."},
        userId=_TEXT | {"description": "Absent: the API key's user."},
        thread=_TEXT | {"description": "Absent: this user's one conversation with the agent that has no thread."},
        forceNew=_FLAG | {"description": "A new conversation, under a thread that is made up."},
        provider=_TEXT,
        model=_TEXT,
        dryRun=_FLAG,
    ),
    "Opened": _success(
        agentId=_TEXT | {"description": "The conversation id."},
        token=_TEXT,
        expiresAt=_EPOCH_MS,
        sseUrl=_TEXT,
        messagesUrl=_TEXT,
        threadId=_or_null(_TEXT),
    ),
    "DryRun": _success(dryRun={"const": True}, agentId=_TEXT, threadId=_or_null(_TEXT)),
    "Agents": _success(
        agents={
            "type": "array",
            "items": _object(
                ["agentId", "isDefault", "worker", "model"],
                agentId=_TEXT,
                isDefault=_FLAG,
                worker=_TEXT,
                model=_or_null(_TEXT),
            ),
        }
    ),
    "Conversations": _success(
        conversations={
            "type": "array",
            "items": _object(
                ["agentId", "agent", "title", "createdAt", "lastActivity", "queued", "running"],
                agentId=_TEXT | {"description": "The conversation id."},
                agent=_TEXT,
                title=_or_null(_TEXT) | {"description": "The beginning of its first message that is kept."},
                createdAt=_EPOCH_MS,
                lastActivity=_EPOCH_MS,
                queued=_COUNT,
                running=_COUNT,
            ),
        }
    ),
    "Turns": _success(
        turns={
            "type": "array",
            "items": _object(
                ["turnId", "messageId", "content", "status", "attempt", "acceptedAt", "errorCode", "seq", "end"],
                turnId=_TEXT,
                messageId=_TEXT,
                content=_TEXT | {"description": "Its first 20,000 characters."},
                status=_TEXT,
                attempt=_COUNT,
                acceptedAt=_EPOCH_MS,
                errorCode=_or_null(_TEXT),
                seq=_or_null(_COUNT),
                end={"type": ["object", "null"], "description": "Its terminal event: `{event, data}`; null: owed."},
                questions={"type": "array", "items": {"type": "object"}},
            ),
        },
        before=_or_null(_COUNT) | {"description": "For the page before this one; null: there is none."},
        since=_COUNT | {"description": "An event stream from here tells all of what is owed, and what comes."},
    ),
    "Caller": _success(
        organizationId=_TEXT, userId=_TEXT, role={"type": "string", "enum": ["admin", "user"]}, boundTo=_or_null(_TEXT)
    ),
    "Shown": _success(
        agent=_object(
            ["agentId", "userId", "status", "createdAt", "lastActivity", "hasActiveConnection", "queued", "running"],
            agentId=_TEXT,
            userId=_TEXT,
            status={"type": "string", "enum": ["idle", "queued", "running", "closing", "closed"]},
            createdAt=_EPOCH_MS,
            lastActivity=_EPOCH_MS,
            hasActiveConnection=_FLAG,
            queued=_COUNT,
            running=_COUNT,
        )
    ),
    "Timeline": _success(
        turnId=_TEXT,
        messageId=_TEXT,
        entries={
            "type": "array",
            "items": _object(
                ["at", "name", "sinceStartMs"],
                at=_EPOCH_MS,
                name={"type": "string", "enum": [moment.value for moment in Moment]},
                sinceStartMs={"type": "number", "description": "From the acceptance."},
                detail=_TEXT,
            ),
        },
    ),
    "Ended": _success(closed=_FLAG | {"description": "False: it is being ended; `closed` follows in its events."}),
    "MessageRequest": {
        **_object(
            ["content"],
            content=_TEXT | {"minLength": 1},
            message=_TEXT | {"description": "Older name of `content`.", "deprecated": True},
            messageId=_TEXT | {"pattern": "^[\\x21-\\x7e]{1,200}$"},
            onBusy={"type": "string", "enum": [value.value for value in OnBusy], "default": OnBusy.ENQUEUE.value},
            model=_TEXT,
            platform=_TEXT,
        ),
        "additionalProperties": True,
        "description": "Fields that are not known here are handed on to the worker.",
    },
    "MessageForm": {
        **_object(
            ["content"],
            content=_TEXT | {"minLength": 1},
            messageId=_TEXT | {"pattern": "^[\\x21-\\x7e]{1,200}$"},
            payload=_TEXT | {"description": "Any of the fields of MessageRequest, as one JSON object."},
            files={
                "type": "array",
                "items": {"type": "string", "format": "binary"},
                "description": "They lie in the worker's `input/` when it gets the message, under safe names, which "
                "stand in the message's `files`. By default at most 10, 50 MB each, 100 MB together.",
            },
        ),
        "additionalProperties": _TEXT,
        "description": "A message with files. Other fields are texts and go to the worker; they win over `payload`'s. "
        "The same `messageId` again brings nothing new.",
    },
    "Files": _success(
        files={
            "type": "array",
            "items": _object(
                ["fileId", "name", "mediaType", "size", "direction", "messageId", "createdAt"],
                fileId=_TEXT,
                name=_TEXT,
                mediaType=_TEXT,
                size=_COUNT,
                direction={"type": "string", "enum": ["in", "out"]},
                messageId=_or_null(_TEXT),
                createdAt=_EPOCH_MS,
            ),
        }
    ),
    "Receipt": _success(
        messageId=_TEXT,
        agentId=_TEXT,
        turnId=_TEXT,
        queued={"const": True},
        position=_COUNT | {"description": "Messages that were owed before this one."},
        eventsUrl=_TEXT | {"description": "A stream of this message alone, from its acceptance to its terminal event."},
    ),
    "Ticket": _success(ticket=_TEXT, expiresAt=_EPOCH_MS),
    "BrowserSession": _success(expiresAt=_EPOCH_MS),
    "CancelRequest": _object([], messageId=_TEXT | {"description": "Absent: everything that is owed."}),
    "CancelReceipt": _success(stage={"type": "string", "enum": ["accepted", "nothing-to-cancel"]}),
    "AnswerRequest": _object(["answer"], answer=_TEXT | {"minLength": 1}),
    "ResetRequest": _object([], messageId=_TEXT | {"pattern": "^[\\x21-\\x7e]{1,200}$"}),
    "SessionMessages": _success(
        messages={
            "type": "array",
            "items": _object(
                ["id", "role", "content", "timestamp"],
                id=_TEXT,
                role=_TEXT | {"description": "As the worker wrote it: `user`, `assistant`, and others."},
                content=_TEXT | {"description": "Its text parts."},
                timestamp=_or_null(_EPOCH_MS),
                model=_TEXT,
                provider=_TEXT,
                stopReason=_TEXT,
                usage={"type": "object"},
            ),
        },
        nextCursor=_or_null(_TEXT),
        hasMore=_FLAG,
    ),
    "SessionStats": _success(
        stats=_object(
            ["generation", "messages", "messagesByRole", "entries", "skippedLines", "bytes", "usage"],
            generation=_COUNT | {"description": "Grows by one with every reset."},
            messages=_COUNT,
            messagesByRole={"type": "object", "additionalProperties": _COUNT},
            entries=_COUNT,
            skippedLines=_COUNT | {"description": "Lines that are no JSON object."},
            bytes=_COUNT,
            usage={"type": ["object", "null"], "description": "Sums of the numbers that the worker noted."},
            firstTimestamp=_or_null(_EPOCH_MS),
            lastTimestamp=_or_null(_EPOCH_MS),
        )
    ),
    "Snapshot": _success(snapshotJsonl=_TEXT),
    "SnapshotRequest": _object(
        ["runId", "terminalStatus", "snapshotJsonl"],
        runId=_TEXT,
        terminalStatus=_TEXT | {"description": "Only the snapshot of `completed` is kept."},
        snapshotJsonl=_TEXT,
    ),
    "SnapshotKept": _success(kept=_FLAG),
    "SnapshotsDeleted": _success(deleted=_COUNT),
    "Health": _success(status={"type": "string"}),
}

SSE_EVENTS: dict[str, str] = {
    "connected": "first; `{agentId, timestamp}`",
    "output": 'new text; `{type: "delta", content, messageId, timestamp}`',
    "status": 'what a worker is at; `{type: "status", status, phase?, messageId, timestamp}`',
    "ephemeral": 'a remark that is no part of the reply; `{type: "ephemeral", content, messageId, timestamp}`',
    "question": "a worker waits for an answer; `{questionId, prompt, options, messageId}`",
    "question-answered": "`{questionId, answer}`",
    "cancel": "a stage of cancelling; `{stage, messageId}`",
    "restart": "forget this message's output so far; `{messageId, attempt, reason}`",
    "complete": "terminal; `{type, messageId, processedMessageIds, finalText, usage?, files?, filesRefused?, "
    "toolCalls?, timestamp}`; `toolCalls` are `{id, name, arguments}` that the client is to carry out; "
    "`files` are `{fileId, name, mediaType, size}` that the worker left, `filesRefused` are "
    "`{name, reason}`",
    "agent-error": "terminal; `{type, error, errorCode, errorContext?, messageId, processedMessageIds, timestamp}`; "
    "the same again follows as `error`, for older readers; `errorContext` of `NO_MODEL_CONFIGURED` is `{settingsUrl}`",
    "cancelled": "terminal; `{messageId, processedMessageIds, finalText, timestamp}`",
    "gap": "the cursor is older than what is kept; `{from, to, reason}`",
    "drain": "this server is going; reconnect; `{reconnectInMs}`",
    "closed": "last; `{reason}`",
}

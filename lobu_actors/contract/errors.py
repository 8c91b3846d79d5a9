"""Every error code that a client can see, split by whose fault it is, each with one sentence that says what to do.

A worker's `fail` frame may carry a code of its own; `known_code` says whether its form is fit for the wire.
"""

from __future__ import annotations

import re
from enum import StrEnum

_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}\Z")


class Fault(StrEnum):
    CALLER = "caller"  # change the request
    AGENT = "agent"  # look at the worker program
    PROVIDER = "provider"  # look at the model provider
    OPERATOR = "operator"  # look at this installation


class TurnError(StrEnum):
    """Codes of `agent-error`: how an accepted turn failed."""

    WORKER_CRASHED = "WORKER_CRASHED"
    WORKER_STARTUP_FAILED = "WORKER_STARTUP_FAILED"
    WORKER_UNRESPONSIVE = "WORKER_UNRESPONSIVE"
    WORKER_PROTOCOL_ERROR = "WORKER_PROTOCOL_ERROR"
    WORKER_CRASH_LOOP = "WORKER_CRASH_LOOP"
    WORKER_FAILED = "WORKER_FAILED"
    SESSION_TIMEOUT = "SESSION_TIMEOUT"
    FIRST_OUTPUT_TIMEOUT = "FIRST_OUTPUT_TIMEOUT"
    NO_PROGRESS = "NO_PROGRESS"
    TOOL_TIMEOUT = "TOOL_TIMEOUT"
    TURN_TIMEOUT = "TURN_TIMEOUT"
    QUESTION_TIMEOUT = "QUESTION_TIMEOUT"
    REPLY_TOO_LARGE = "REPLY_TOO_LARGE"
    TOO_MANY_QUESTIONS = "TOO_MANY_QUESTIONS"
    SESSION_FILE_INVALID = "SESSION_FILE_INVALID"
    WORKSPACE_FULL = "WORKSPACE_FULL"
    PROVIDER_AUTH = "PROVIDER_AUTH"
    PROVIDER_QUOTA = "PROVIDER_QUOTA"
    PROVIDER_UNAVAILABLE = "PROVIDER_UNAVAILABLE"
    PROVIDER_REFUSED = "PROVIDER_REFUSED"
    GUARDRAIL_REJECTED = "GUARDRAIL_REJECTED"
    GUARDRAIL_FAILED = "GUARDRAIL_FAILED"
    NO_MODEL_CONFIGURED = "NO_MODEL_CONFIGURED"
    AGENT_DISABLED = "AGENT_DISABLED"
    HOST_LOST = "HOST_LOST"
    MARKER_CORRUPT = "MARKER_CORRUPT"
    SNAPSHOT_CORRUPT = "SNAPSHOT_CORRUPT"
    DISK_FULL = "DISK_FULL"
    INTERNAL_ERROR = "INTERNAL_ERROR"


class ApiError(StrEnum):
    """Codes of refused requests: nothing was accepted."""

    INVALID_REQUEST = "INVALID_REQUEST"  # no request of HTTP/1.1, or one whose head is too large
    INVALID_JSON = "INVALID_JSON"
    INVALID_FIELD = "INVALID_FIELD"
    INVALID_TEXT = "INVALID_TEXT"
    INVALID_CURSOR = "INVALID_CURSOR"
    INVALID_MULTIPART = "INVALID_MULTIPART"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    UNAUTHORIZED = "UNAUTHORIZED"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"
    TICKET_INVALID = "TICKET_INVALID"
    TICKET_EXPIRED = "TICKET_EXPIRED"
    TICKET_USED = "TICKET_USED"
    ORIGIN_REFUSED = "ORIGIN_REFUSED"
    RATE_LIMITED = "RATE_LIMITED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    UPGRADE_REQUIRED = "UPGRADE_REQUIRED"
    NO_REMOTE_WORKERS = "NO_REMOTE_WORKERS"
    AGENT_NOT_FOUND = "AGENT_NOT_FOUND"
    NO_DEFAULT_AGENT = "NO_DEFAULT_AGENT"
    CONVERSATION_NOT_FOUND = "CONVERSATION_NOT_FOUND"
    CONVERSATION_CLOSED = "CONVERSATION_CLOSED"
    CONVERSATION_BUSY = "CONVERSATION_BUSY"
    MESSAGE_NOT_FOUND = "MESSAGE_NOT_FOUND"
    SNAPSHOT_NOT_FOUND = "SNAPSHOT_NOT_FOUND"
    DUPLICATE_SNAPSHOT = "DUPLICATE_SNAPSHOT"
    SESSION_DAMAGED = "SESSION_DAMAGED"
    QUESTION_NOT_FOUND = "QUESTION_NOT_FOUND"
    QUESTION_ANSWERED = "QUESTION_ANSWERED"
    QUESTION_WITHDRAWN = "QUESTION_WITHDRAWN"
    QUEUE_FULL = "QUEUE_FULL"
    TOO_MANY_STREAMS = "TOO_MANY_STREAMS"
    TOO_MANY_UPLOADS = "TOO_MANY_UPLOADS"
    FILE_NOT_FOUND = "FILE_NOT_FOUND"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    DRAINING = "DRAINING"
    OWNER_UNREACHABLE = "OWNER_UNREACHABLE"
    BODY_TIMEOUT = "BODY_TIMEOUT"
    INTERNAL = "INTERNAL"


TURN_ERRORS: dict[TurnError, tuple[Fault, str]] = {
    TurnError.WORKER_CRASHED: (Fault.AGENT, "The worker ended before it finished its reply; send the message again."),
    TurnError.WORKER_STARTUP_FAILED: (Fault.AGENT, "The worker could not be started; the operator's log says why."),
    TurnError.WORKER_UNRESPONSIVE: (Fault.AGENT, "The worker stopped giving signs of life and was ended."),
    TurnError.WORKER_PROTOCOL_ERROR: (Fault.AGENT, "The worker sent something that is not the worker protocol."),
    TurnError.WORKER_CRASH_LOOP: (Fault.AGENT, "The worker of this conversation keeps crashing; try again later."),
    TurnError.WORKER_FAILED: (Fault.AGENT, "The worker reported a failure."),
    TurnError.SESSION_TIMEOUT: (Fault.AGENT, "The worker reported that its session timed out."),
    TurnError.FIRST_OUTPUT_TIMEOUT: (Fault.AGENT, "The worker produced no first output in time and was ended."),
    TurnError.NO_PROGRESS: (Fault.AGENT, "The worker was alive but made no progress in time and was ended."),
    TurnError.TOOL_TIMEOUT: (Fault.AGENT, "A tool of the worker ran longer than it may and was ended."),
    TurnError.TURN_TIMEOUT: (Fault.AGENT, "The turn took longer than it may in all and was ended."),
    TurnError.QUESTION_TIMEOUT: (Fault.CALLER, "A question was not answered in time; send the message again."),
    TurnError.REPLY_TOO_LARGE: (Fault.AGENT, "The reply grew over the size limit and was ended."),
    TurnError.TOO_MANY_QUESTIONS: (Fault.AGENT, "The worker asked more questions at once than it may and was ended."),
    TurnError.SESSION_FILE_INVALID: (Fault.AGENT, "The worker left a session file that cannot be stored."),
    TurnError.WORKSPACE_FULL: (Fault.AGENT, "The worker filled its workspace over the limit and was ended."),
    TurnError.PROVIDER_AUTH: (Fault.PROVIDER, "The model provider refused the credentials; check the provider key."),
    TurnError.PROVIDER_QUOTA: (Fault.PROVIDER, "The model provider's quota is used up; wait or raise it."),
    TurnError.PROVIDER_UNAVAILABLE: (Fault.PROVIDER, "The model provider did not answer; try again later."),
    TurnError.PROVIDER_REFUSED: (Fault.PROVIDER, "The model provider refused the request; change it or the model."),
    TurnError.GUARDRAIL_REJECTED: (Fault.CALLER, "A guardrail of this agent refused the message."),
    TurnError.GUARDRAIL_FAILED: (Fault.OPERATOR, "A guardrail could not be run, so the message was refused."),
    TurnError.NO_MODEL_CONFIGURED: (Fault.OPERATOR, "This agent has no model configured."),
    TurnError.AGENT_DISABLED: (Fault.OPERATOR, "This agent is not configured here any more."),
    TurnError.HOST_LOST: (Fault.OPERATOR, "The host that ran this turn was lost; send the message again."),
    TurnError.MARKER_CORRUPT: (Fault.OPERATOR, "The record of this turn could not be read; send the message again."),
    TurnError.SNAPSHOT_CORRUPT: (Fault.OPERATOR, "The stored session of this conversation is damaged; reset it."),
    TurnError.DISK_FULL: (Fault.OPERATOR, "The disk of this host is full; send the message again when there is room."),
    TurnError.INTERNAL_ERROR: (Fault.OPERATOR, "Something in the runtime failed; the operator's log says what."),
}


def turn_error_text(code: str) -> str:
    """The sentence of a code; for a worker's own code, the general one."""
    try:
        return TURN_ERRORS[TurnError(code)][1]
    except ValueError:
        return TURN_ERRORS[TurnError.WORKER_FAILED][1]


def known_code(code: str) -> str:
    """`code` if its form is fit for the wire (capital letters, digits, `_`, at most 64), else WORKER_FAILED."""
    return code if _CODE.match(code) else TurnError.WORKER_FAILED.value

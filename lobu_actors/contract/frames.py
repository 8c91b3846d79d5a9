"""Worker protocol, version 1: one JSON object a line between a supervisor and a worker. Pure: bytes in, frames out.

Unknown fields are kept in `extra` and written out again; unknown types decode to `Unknown`; anything else that is not
a frame is a `FrameError`, which ends the run.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import msgspec

PROTOCOL_VERSION = 1
TEXT_OFFSET = "text-offset"  # capability: the first delta that answers `reattach` says where its text begins
RUN_UNKNOWN = "RUN_UNKNOWN"  # code of the `fail` that answers a `reattach` for a run that the worker was never given
CANCELLED = "CANCELLED"  # code of the `fail` of a run that ended because of `cancel`
MAX_LINE_BYTES = 8 * 1024 * 1024
SHOWN_BYTES = 200

Json = dict[str, Any]


class FrameError(ValueError):
    """A line that is not a frame. `shown` is its first 200 bytes, for the log."""

    def __init__(self, reason: str, line: bytes) -> None:
        super().__init__(reason)
        self.shown = line[:SHOWN_BYTES]


def _wire(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all frames. A field's Python type is its whole wire check; None means absent."""

    TYPE: ClassVar[str]
    extra: Json = msgspec.field(default_factory=dict)


# --- supervisor -> worker


class Hello(Frame, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "hello"
    protocol: int = PROTOCOL_VERSION
    worker_id: str
    organization_id: str
    agent_id: str
    conversation_id: str
    workspace: str
    session_file: str
    settings: Json
    deadlines: Json


class TurnFrame(Frame, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "turn"
    run_id: str
    attempt: int
    messages: list[Json]
    run_token: str


class Steer(Frame, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "steer"
    run_id: str
    message_id: str
    content: str


class Answer(Frame, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "answer"
    run_id: str
    question_id: str
    answer: str


class Cancel(Frame, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "cancel"
    run_id: str
    reason: str
    grace_seconds: float


class Reattach(Frame, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "reattach"
    run_id: str
    text_offset: int


class Shutdown(Frame, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "shutdown"
    grace_seconds: float


# --- worker -> supervisor


class Ready(Frame, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "ready"
    protocol: int = PROTOCOL_VERSION
    name: str = ""
    version: str = ""
    capabilities: list[str] = msgspec.field(default_factory=list)


class Heartbeat(Frame, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "heartbeat"


class Delta(Frame, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "delta"
    run_id: str
    text: str
    text_offset: int | None = None  # only of text that is sent again: where it begins, in code points


class Status(Frame, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "status"
    run_id: str
    status: str
    phase: str | None = None
    tool: str | None = None
    code: str | None = None  # a failure that the provider reported and that the worker may yet get over


class Ask(Frame, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "ask"
    run_id: str
    question_id: str
    prompt: str
    options: list[str] | None = None


class Ephemeral(Frame, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "ephemeral"
    run_id: str
    text: str


class Complete(Frame, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "complete"
    run_id: str
    text: str | None = None
    usage: Json | None = None
    tool_calls: list[Json] | None = None  # `{id, name, arguments}` that the client is to carry out
    processed_message_ids: list[str] | None = None  # what was read of the messages that joined the run; absent: all


class Fail(Frame, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "fail"
    run_id: str
    code: str
    message: str = ""
    retryable: bool | None = None
    context: Json | None = None


class Log(Frame, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "log"
    level: str = "info"
    message: str = ""
    fields: Json = msgspec.field(default_factory=dict)


class Unknown(Frame, frozen=True, kw_only=True):
    """A frame of a type that this version does not know: ignored, with a debug line."""

    TYPE: ClassVar[str] = ""
    type: str


SupervisorFrame = Hello | TurnFrame | Steer | Answer | Cancel | Reattach | Shutdown
RunFrame = Delta | Status | Ask | Ephemeral | Complete | Fail
WorkerFrame = Ready | Heartbeat | Log | RunFrame

SUPERVISOR_FRAMES: dict[str, type[Frame]] = {
    kind.TYPE: kind for kind in (Hello, TurnFrame, Steer, Answer, Cancel, Reattach, Shutdown)
}
WORKER_FRAMES: dict[str, type[Frame]] = {
    kind.TYPE: kind for kind in (Ready, Heartbeat, Delta, Status, Ask, Ephemeral, Complete, Fail, Log)
}


class _FieldRule(msgspec.Struct, frozen=True):
    name: str
    wire: str
    types: tuple[type, ...]
    required: bool
    strings: bool  # a list whose items must all be strings


_CHECKS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "Json": (dict,),
    "list[str]": (list,),
    "list[Json]": (list,),
}


def _rules(kind: type[Frame]) -> tuple[_FieldRule, ...]:
    """Of its own fields, as they are declared."""
    names, defaults = kind.__struct_fields__, kind.__struct_defaults__
    default_of = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
    rules = []
    for name, declared in kind.__annotations__.items():
        if name in names:
            wanted = declared.removesuffix(" | None")
            required = default_of.get(name, msgspec.NODEFAULT) is msgspec.NODEFAULT
            rules.append(_FieldRule(name, _wire(name), _CHECKS[wanted], required, strings=wanted == "list[str]"))
    return tuple(rules)


_RULES: dict[type[Frame], tuple[_FieldRule, ...]] = {
    kind: _rules(kind) for kind in (*SUPERVISOR_FRAMES.values(), *WORKER_FRAMES.values())
}


_to_json = json.JSONEncoder(separators=(",", ":")).encode
_of_text = json.JSONDecoder().decode


def _from_json(line: bytes) -> Any:
    try:
        return _of_text(line.decode())
    except ValueError:
        return json.loads(line)  # which knows more encodings, at the price of looking for one each time


def _fits(value: Any, rule: _FieldRule) -> bool:
    """`value` came from JSON, so it is of no subclass; and a bool is no int."""
    return type(value) in rule.types and not (rule.strings and any(type(item) is not str for item in value))


def encode(frame: Frame) -> bytes:
    """One line, LF included. Absent optional fields are left out."""
    wire: Json = {"type": frame.TYPE}
    for rule in _RULES[type(frame)]:
        value = getattr(frame, rule.name)
        if value is not None:
            wire[rule.wire] = value
    for name, value in frame.extra.items():
        wire.setdefault(name, value)
    # ASCII escapes, so that a lone surrogate in somebody's text cannot break the line.
    return _to_json(wire).encode("ascii") + b"\n"


def decode_worker_frame(line: bytes) -> Frame:
    """What a worker said: a `WorkerFrame` or `Unknown`. Raises FrameError."""
    return _decode(line, WORKER_FRAMES)


def decode_supervisor_frame(line: bytes) -> Frame:
    """What a worker is told: a `SupervisorFrame` or `Unknown`. Raises FrameError."""
    return _decode(line, SUPERVISOR_FRAMES)


def _decode(line: bytes, kinds: dict[str, type[Frame]]) -> Frame:
    try:
        wire = _from_json(line)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"not a JSON line: {error}", line) from error
    if not isinstance(wire, dict) or not isinstance(wire.get("type"), str):
        raise FrameError("a frame is a JSON object with a string `type`", line)
    name = wire.pop("type")
    kind = kinds.get(name)
    if kind is None:
        return Unknown(type=name, extra=wire)
    values: Json = {}
    for rule in _RULES[kind]:
        value = wire.pop(rule.wire, None)
        if value is None:
            if rule.required:
                raise FrameError(f"`{name}` lacks `{rule.wire}`", line)
        elif not _fits(value, rule):
            raise FrameError(f"`{rule.wire}` of `{name}` has the wrong type", line)
        else:
            values[rule.name] = value
    return kind(**values, extra=wire)

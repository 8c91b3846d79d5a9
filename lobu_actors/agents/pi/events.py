"""What pi's events mean for a turn. Pure: an event in, what is to be done out.

Owns the names of pi's RPC mode (0.87). What pi says of a text that it will try to have written anew cannot be taken
back, since people have read it: then pi is stopped and the turn fails.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lobu_actors.agents import provider_errors

Json = dict[str, Any]
_DIALOGS = ("select", "confirm", "input", "editor")
YES, NO = "yes", "no"


class Text(NamedTuple):
    text: str


class Show(NamedTuple):
    """A status."""

    status: str
    phase: str | None = None
    tool: str | None = None
    code: str | None = None


class Note(NamedTuple):
    """Something for the person that is no part of the reply."""

    text: str


class Question(NamedTuple):
    request_id: str
    method: str
    prompt: str
    options: list[str] | None


class Read(NamedTuple):
    """pi gave this to the model: what the user wrote."""

    text: str


class Stop(NamedTuple):
    """pi is to be aborted: it would write anew what was shown."""


class Settled(NamedTuple):
    """The end: pi will not go on by itself."""


Action = Text | Show | Note | Question | Read | Stop | Settled


@dataclass
class Reading:
    """One turn's events so far."""

    stop_reason: str | None = None  # of the newest answer of the model
    error: str = ""
    began: bool = False
    text: bool = False  # something was shown
    _shown: int = 0  # characters of the message that is being written
    _tools: dict[str, str] = field(default_factory=dict)  # that run now
    _usage: dict[str, int] = field(default_factory=dict)

    def take(self, event: Json) -> list[Action]:
        match event.get("type"):
            case "agent_start":
                self.began = True
            case "message_start":
                return self._message_start(_table(event.get("message")))
            case "message_update":
                return self._update(_table(event.get("assistantMessageEvent")))
            case "message_end":
                self._message_end(_table(event.get("message")))
            case "tool_execution_start":
                name = str(event.get("toolName"))
                self._tools[str(event.get("toolCallId"))] = name
                return [Show(f"running {name}", "tool", name)]
            case "tool_execution_end":
                self._tools.pop(str(event.get("toolCallId")), None)
                return [] if self._tools else [Show("thinking", "model")]
            case "compaction_start":
                return [Show("compacting the session", "model")]
            case "auto_retry_start":
                return self._retry(event)
            case "extension_ui_request":
                return _extension(event)
            case "agent_settled":
                return [Settled()]
        return []

    @property
    def usage(self) -> Json | None:
        return dict(self._usage) or None

    def _message_start(self, message: Json) -> list[Action]:
        self._shown = 0
        return [Read(_text_of(message.get("content")))] if message.get("role") == "user" else []

    def _update(self, update: Json) -> list[Action]:
        if update.get("type") == "text_delta" and isinstance(update.get("delta"), str) and update["delta"]:
            gap = "\n\n" if self.text and not self._shown else ""
            self._shown += len(update["delta"])
            self.text = True
            return [Text(gap + update["delta"])]
        return [Show("thinking", "model")] if update.get("type") in ("thinking_delta", "toolcall_start") else []

    def _message_end(self, message: Json) -> None:
        if message.get("role") != "assistant":
            return
        self.stop_reason = message.get("stopReason")
        self.error = str(message.get("errorMessage") or "")
        usage = _table(message.get("usage"))
        cached, written = _number(usage.get("cacheRead")), _number(usage.get("cacheWrite"))
        for name, value in (
            ("inputTokens", _number(usage.get("input")) + cached + written),
            ("outputTokens", _number(usage.get("output"))),
            ("totalTokens", _number(usage.get("totalTokens"))),
            ("cachedInputTokens", cached),
            ("reasoningTokens", _number(usage.get("reasoning"))),
        ):
            if value:
                self._usage[name] = self._usage.get(name, 0) + value

    def _retry(self, event: Json) -> list[Action]:
        if self._shown:
            return [Stop()]
        code = provider_errors.of_text(str(event.get("errorMessage") or "")).code
        seconds = _number(event.get("delayMs")) / 1000
        return [Show(f"the model provider failed, trying again in {seconds:g} s", "waiting", code=code)]


def answer(question: Question, text: str) -> Json:
    """What pi is told. Only what was offered, or `yes` for a confirmation, counts as consent."""
    wire: Json = {"type": "extension_ui_response", "id": question.request_id}
    if question.method == "confirm":
        return wire | {"confirmed": text.strip().lower() == YES}
    if question.options is not None and text not in question.options:
        return wire | {"cancelled": True}
    return wire | {"value": text}


def _extension(event: Json) -> list[Action]:
    method, request_id = event.get("method"), event.get("id")
    if method in _DIALOGS and isinstance(request_id, str):
        parts = (event.get("title"), event.get("message"), event.get("prefill"))
        prompt = "\n\n".join(part for part in parts if isinstance(part, str) and part) or str(method)
        options = event.get("options")
        if method == "confirm":
            return [Question(request_id, method, prompt, [YES, NO])]
        if method == "select" and isinstance(options, list):
            return [Question(request_id, method, prompt, [str(option) for option in options])]
        return [Question(request_id, str(method), prompt, None)]
    if method == "notify" and isinstance(event.get("message"), str):
        return [Note(event["message"])]
    return []


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def _table(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0

"""The streaming dialect of `/chat/completions`: chunks are put together to one answer. Pure.

Owns what a chunk means and when an answer is whole. It is lenient where providers differ (no `[DONE]`, no index, whole
tool calls in one chunk, usage in the last choice's chunk) and strict in one thing: an answer without its end is none.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from lobu_actors.agents import provider_errors as errors

Json = dict[str, Any]
DONE = "[DONE]"
REASONING = ("reasoning_content", "reasoning")  # not part of the dialect; what providers call it


@dataclass
class Call:
    """A tool call. `arguments` is JSON as the model wrote it, which may be none."""

    id: str = ""
    name: str = ""
    arguments: str = ""

    def to_client(self) -> dict[str, str]:
        """As a turn hands it to the client."""
        return {"id": self.id, "name": self.name, "arguments": self.arguments or "{}"}


@dataclass
class Answer:
    """What one request brought; grows while it streams."""

    text: str = ""
    calls: list[Call] = field(default_factory=list)
    finish_reason: str | None = None
    usage: Json | None = None
    ended: bool = False
    reasoned: bool = False  # the last chunk had nothing but thoughts

    def take(self, data: str) -> str:
        """One event's data; gives the text in it. Raises ProviderError."""
        self.reasoned = False
        if data.strip() == DONE:
            self.ended = True
            return ""
        try:
            chunk = json.loads(data)
        except ValueError:
            raise errors.broken("sent a chunk that is not JSON") from None
        if not isinstance(chunk, dict):
            raise errors.broken("sent a chunk that is no object")
        if chunk.get("error") is not None:
            raise errors.of_event(chunk["error"])
        if isinstance(chunk.get("usage"), dict):
            self.usage = chunk["usage"]
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        return self._take_choice(choice) if isinstance(choice, dict) else ""

    def check_whole(self) -> None:
        """Raises ProviderError when the stream ended before the answer did."""
        if self.finish_reason is None and not self.ended:
            raise errors.broken("ended its answer in the middle")

    def _take_choice(self, choice: Json) -> str:
        if isinstance(choice.get("finish_reason"), str):
            self.finish_reason = choice["finish_reason"]
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return ""
        parts = delta.get("tool_calls")
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                self._take_call(part)
        text = delta.get("content")
        text = text if isinstance(text, str) else ""
        self.reasoned = not text and any(delta.get(name) for name in REASONING)
        self.text += text
        return text

    def _take_call(self, part: Json) -> None:
        index, identifier = part.get("index"), part.get("id")
        if not isinstance(index, int):  # some leave it out: a new id begins a new call
            known = identifier is None or any(call.id == identifier for call in self.calls)
            index = max(0, len(self.calls) - 1) if known else len(self.calls)
        if not 0 <= index <= len(self.calls):
            raise errors.broken("sent tool calls out of order")
        if index == len(self.calls):
            self.calls.append(Call())
        call, function = self.calls[index], part.get("function")
        if isinstance(identifier, str) and identifier:
            call.id = identifier
        if isinstance(function, dict):
            call.name = call.name or _text(function.get("name"))
            call.arguments += _text(function.get("arguments"))


class Usage:
    """Tokens of all requests of one turn."""

    def __init__(self) -> None:
        self._sums: dict[str, int] = {}

    def add(self, usage: Json | None) -> None:
        found = usage or {}
        inner = (("prompt_tokens_details", "cached_tokens"), ("completion_tokens_details", "reasoning_tokens"))
        cached, reasoning = (_table(found.get(table)).get(name) for table, name in inner)
        for name, value in (
            ("inputTokens", found.get("prompt_tokens")),
            ("outputTokens", found.get("completion_tokens")),
            ("totalTokens", found.get("total_tokens")),
            ("cachedInputTokens", cached),
            ("reasoningTokens", reasoning),
        ):
            if isinstance(value, int) and value >= 0:
                self._sums[name] = self._sums.get(name, 0) + value

    def total(self) -> Json | None:
        """None when the provider told nothing."""
        return dict(self._sums) or None


def request_body(model: str, messages: list[Json], tools: Json, parameters: Json) -> Json:
    """What is posted; `parameters` cannot replace what the loop depends on. `tools`: the fields about them."""
    return {
        **parameters,
        **tools,
        "model": model,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _table(value: Any) -> Json:
    return value if isinstance(value, dict) else {}

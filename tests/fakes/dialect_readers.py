"""Strict readers of the four dialects: a whole stream in, what a client learns out. Anything out of form fails.

Written from what the protocols ask for, not from the encoders; nothing of `edge` is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs

Json = dict[str, Any]


@attrs.define
class Outcome:
    """`end`: complete, error, cancelled or question (where the dialect can say so); None: there was none."""

    text: str = ""
    end: str | None = None
    code: str | None = None
    calls: list[tuple[str, str, str]] = attrs.field(factory=list)
    usage: Json | None = None
    parts: list[Json] = attrs.field(factory=list)  # data parts, custom events, interrupts


def frames(raw: bytes) -> list[tuple[str | None, Any]]:
    """Event name and data of each frame; `[DONE]` stays a text. Comments are left out."""
    assert b"\r" not in raw
    assert raw == b"" or raw.endswith(b"\n\n"), raw[-80:]
    found: list[tuple[str | None, Any]] = []
    for block in raw.decode().split("\n\n")[:-1]:
        if block.startswith(":"):
            continue
        *names, data = block.split("\n")
        assert data.startswith("data: "), block
        assert len(names) <= 1, block
        name = names[0].removeprefix("event: ") if names else None
        text = data.removeprefix("data: ")
        found.append((name, text if text == "[DONE]" else json.loads(text)))
    return found


def read_chat(raw: bytes, *, with_usage: bool = False) -> Outcome:
    found, outcome = frames(raw), Outcome()
    reason = None
    first: Json = {}
    for index, (name, data) in enumerate(found):
        assert name is None
        assert outcome.end is None, f"behind the end: {data}"
        if data == "[DONE]":
            assert reason is not None
            assert not with_usage or outcome.usage is not None
            outcome.end = "complete"
        elif "error" in data:
            assert set(data) == {"error"}
            assert set(data["error"]) == {"message", "type", "param", "code"}
            assert reason is None
            outcome.end, outcome.code = "error", data["error"]["code"]
        else:
            first = first or data
            assert {key: data[key] for key in ("id", "model", "created")} == {
                key: first[key] for key in ("id", "model", "created")
            }
            assert data["object"] == "chat.completion.chunk"
            if not data["choices"]:
                assert with_usage
                assert reason is not None
                outcome.usage = data["usage"]
                continue
            assert reason is None
            [choice] = data["choices"]
            delta = choice["delta"]
            assert (delta.get("role") == "assistant") == (index == 0)
            outcome.text += delta.get("content") or ""
            for call in delta.get("tool_calls", ()):
                assert call["index"] == len(outcome.calls)
                function = call["function"]
                outcome.calls.append((call["id"], function["name"], function["arguments"]))
            reason = choice["finish_reason"]
    assert reason != "tool_calls" or outcome.calls
    return outcome


def read_responses(raw: bytes) -> Outcome:
    reader = _Responses()
    for number, (name, data) in enumerate(frames(raw)):
        assert data["type"] == name
        assert data["sequence_number"] == number
        reader.take(number, data)
    return reader.outcome


class _Responses:
    def __init__(self) -> None:
        self.outcome = Outcome()
        self.open: dict[int, str] = {}  # items
        self.done: list[Json] = []
        self.error: Json | None = None

    def take(self, number: int, data: Json) -> None:
        kind = data["type"].removeprefix("response.")
        assert self.outcome.end is None, f"behind the end: {data}"
        assert (number < 2) == (kind in ("created", "in_progress")), data
        if self.error is not None:
            assert kind == "failed", "behind an error comes only the failure"
        if number == 0:
            assert kind == "created"
        match kind:
            case "created" | "in_progress":
                assert (data["response"]["status"], data["response"]["output"]) == ("in_progress", [])
            case "output_item.added":
                assert data["output_index"] == len(self.open) + len(self.done)
                self.open[data["output_index"]] = ""
            case "content_part.added":
                assert self.open[data["output_index"]] == data["part"]["text"] == ""
            case "output_text.delta" | "function_call_arguments.delta":
                self.open[data["output_index"]] += data["delta"]
                if kind == "output_text.delta":
                    self.outcome.text += data["delta"]
            case "output_text.done":
                assert self.open[data["output_index"]] == data["text"]
            case "content_part.done":
                assert self.open[data["output_index"]] == data["part"]["text"]
            case "function_call_arguments.done":
                assert self.open[data["output_index"]] == data["arguments"]
            case "output_item.done":
                del self.open[data["output_index"]]
                self.done.append(data["item"])
            case "error":
                assert data["error"]["code"] == data["code"]
                assert data["error"]["message"] == data["message"]
                self.error = data
            case "failed":
                self._failed(data["response"])
            case "completed":
                self._completed(data["response"])
            case _:
                raise AssertionError(f"unknown event {kind}")

    def _failed(self, response: Json) -> None:
        assert self.error is not None
        assert (response["status"], response["error"]["code"]) == ("failed", self.error["code"])
        self.outcome.end, self.outcome.code = "error", self.error["code"]

    def _completed(self, response: Json) -> None:
        assert not self.open
        assert (response["status"], response["output"]) == ("completed", self.done)
        texts = [part["text"] for item in self.done if item["type"] == "message" for part in item["content"]]
        assert "".join(texts) == self.outcome.text
        self.outcome.calls = [
            (item["call_id"], item["name"], item["arguments"]) for item in self.done if item["type"] == "function_call"
        ]
        self.outcome.end, self.outcome.usage = "complete", response["usage"]


def read_ui(raw: bytes) -> Outcome:
    outcome = Outcome()
    opened: set[str] = set()
    ended = None
    kinds = []
    for name, data in frames(raw):
        assert name is None
        assert outcome.end is None, f"behind the end: {data}"
        if data == "[DONE]":
            assert ended is not None
            outcome.end = ended
            continue
        assert ended is None, f"behind the end: {data}"
        kind = data["type"]
        kinds.append(kind)
        match kind:
            case "start" | "start-step":
                assert kinds.count(kind) == 1
            case "text-start":
                assert not opened
                opened.add(data["id"])
            case "text-delta":
                assert data["id"] in opened
                assert data["delta"]
                outcome.text += data["delta"]
            case "text-end":
                opened.remove(data["id"])
            case "tool-input-available":
                outcome.calls.append((data["toolCallId"], data["toolName"], json.dumps(data["input"])))
            case "finish-step":
                assert not opened
            case "finish":
                assert kinds[-2] == "finish-step"
                assert data["finishReason"] == ("tool-calls" if outcome.calls else "stop")
                ended, outcome.usage = "complete", data.get("messageMetadata", {}).get("usage")
            case "error":
                assert not opened
                ended, outcome.code = "error", data["errorText"].rpartition("(")[2].rstrip(")")
            case "abort":
                assert not opened
                ended = "cancelled"
            case _:
                assert kind.startswith("data-"), kind
                outcome.parts.append(data)
    assert kinds[:2] == ["start", "start-step"]
    return outcome


def read_ag_ui(raw: bytes) -> Outcome:
    outcome = Outcome()
    texts: dict[str, str] = {}
    opened: str | None = None
    run: Json = {}
    calls: dict[str, list[str]] = {}
    for number, (name, data) in enumerate(frames(raw)):
        assert name is None
        assert outcome.end is None, f"behind the end: {data}"
        kind = data["type"]
        assert (kind == "RUN_STARTED") == (number == 0)
        match kind:
            case "RUN_STARTED":
                run = {key: data[key] for key in ("threadId", "runId")}
            case "TEXT_MESSAGE_START":
                assert opened is None
                opened = data["messageId"]
                assert opened not in texts
                texts[opened] = ""
            case "TEXT_MESSAGE_CONTENT":
                assert data["messageId"] == opened
                assert data["delta"]
                texts[opened] += data["delta"]
            case "TEXT_MESSAGE_END":
                assert data["messageId"] == opened
                opened = None
            case "MESSAGES_SNAPSHOT":
                assert opened is None
                texts.clear()
            case "TOOL_CALL_START":
                calls[data["toolCallId"]] = [data["toolCallName"], ""]
            case "TOOL_CALL_ARGS":
                calls[data["toolCallId"]][1] += data["delta"]
            case "TOOL_CALL_END":
                assert data["toolCallId"] in calls
            case "CUSTOM":
                outcome.parts.append(data)
            case "RUN_FINISHED":
                assert {key: data[key] for key in ("threadId", "runId")} == run
                outcome.end = {"success": "complete", "interrupt": "question", "cancelled": "cancelled"}[
                    data["outcome"]["type"]
                ]
                outcome.parts += data["outcome"].get("interrupts", [])
                outcome.usage = (data.get("usage") or [None])[0]
            case "RUN_ERROR":
                outcome.end, outcome.code = "error", data["code"]
            case _:
                raise AssertionError(f"unknown event {kind}")
    assert outcome.end is None or opened is None
    outcome.text = "".join(texts.values())
    outcome.calls = [(name, *call) for name, call in calls.items()]  # type: ignore[misc]
    return outcome


READERS: dict[str, Callable[[bytes], Outcome]] = {
    "chat": read_chat,
    "responses": read_responses,
    "ui": read_ui,
    "ag-ui": read_ag_ui,
}

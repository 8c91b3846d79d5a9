"""The dialects in which the stand-in for a model provider answers: OpenAI's chat and responses, Anthropic's messages.

Owns how an answer looks on the wire, and what of a request is the conversation: `turns_of` gives it in the form of chat
completions whatever the dialect. Knows nothing of commands.
"""

from __future__ import annotations

import json
import os
from typing import Any

import attrs
import h11
import trio

Json = dict[str, Any]
PROMPT_TOKENS = 10


def turns_of(path: str, body: Json) -> list[Json]:
    """The messages as `{role, content, calls}`, results of tools in the role `tool`, each with the id of its call."""
    if path.endswith("/messages"):
        return [turn for message in body["messages"] for turn in _of_message(message)]
    if path.endswith("/responses"):
        items = body["input"] if isinstance(body["input"], list) else [{"role": "user", "content": body["input"]}]
        return [turn for item in items if (turn := _of_item(item)) is not None]
    return [
        {
            "role": message["role"],
            "content": texts_of(message.get("content")),
            "calls": [call["id"] for call in message.get("tool_calls") or ()],
            "result_of": message.get("tool_call_id"),
        }
        for message in body["messages"]
    ]


def _of_message(message: Json) -> list[Json]:
    content = message["content"]
    blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
    results = [
        {"role": "tool", "content": texts_of(block.get("content")), "calls": [], "result_of": block["tool_use_id"]}
        for block in blocks
        if block["type"] == "tool_result"
    ]
    calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
    texts = texts_of(blocks)
    if results and not texts:
        return results
    return [*results, {"role": message["role"], "content": texts, "calls": calls, "result_of": None}]


def _of_item(item: Json) -> Json | None:
    match item.get("type", "message"):
        case "message":
            return {"role": item["role"], "content": texts_of(item["content"]), "calls": [], "result_of": None}
        case "function_call" | "custom_tool_call" | "local_shell_call":
            return {"role": "assistant", "content": [], "calls": [item["call_id"]], "result_of": None}
        case "function_call_output" | "custom_tool_call_output":
            return {"role": "tool", "content": texts_of(item["output"]), "calls": [], "result_of": item["call_id"]}
    return None


def texts_of(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]


@attrs.define
class Reply:
    """One answer of chat completions; other dialects derive from it."""

    stream: trio.SocketStream
    connection: h11.Connection
    _open: bool = False
    name: str = attrs.field(init=False, factory=lambda: os.urandom(6).hex())  # as of no other: agents go by such ids

    async def send(self, status: int, kind: str, body: bytes, headers: list[tuple[str, str]] | None = None) -> None:
        every = [("content-type", kind), ("content-length", str(len(body))), *(headers or [])]
        await self._put(h11.Response(status_code=status, headers=every), h11.Data(data=body), h11.EndOfMessage())

    async def refuse(self, status: int, code: str, message: str, headers: list[tuple[str, str]] | None = None) -> None:
        error = {"error": {"message": message, "type": code, "param": None, "code": code}}
        await self.send(status, "application/json", json.dumps(error).encode(), headers)

    async def begin(self) -> None:
        await self._chunk({"role": "assistant", "content": ""})

    async def text(self, text: str) -> None:
        await self.open()
        await self._chunk({"content": text})

    async def thought(self, text: str) -> None:
        await self.open()
        await self._chunk({"reasoning_content": text})

    async def call(self, calls: list[tuple[str, str]]) -> None:
        await self.open()
        for index, (name, arguments) in enumerate(calls):
            half = len(arguments) // 2
            begin: Json = {
                "index": index,
                "id": f"call-{self.name}-{index}",
                "type": "function",
                "function": {"name": name},
            }
            begin["function"]["arguments"] = arguments[:half]
            await self._chunk({"tool_calls": [begin]})
            await self._chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments[half:]}}]})
        await self.finish("tool_calls", 1)

    async def finish(self, reason: str, tokens: int) -> None:
        await self.open()
        await self._chunk({}, reason)
        usage = {
            "prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens,
        }  # fmt: skip
        await self.event({"object": "chat.completion.chunk", "choices": [], "usage": usage})
        await self._put(h11.Data(data=b"data: [DONE]\n\n"))
        await self.end()

    async def fail(self, code: str) -> None:
        """An error in the stream."""
        await self.open()
        await self.event({"error": {"message": "made up", "code": int(code) if code.isdecimal() else code}})
        await self.end()

    async def open(self) -> None:
        if not self._open:
            self._open = True
            await self._put(h11.Response(status_code=200, headers=[("content-type", "text/event-stream")]))
            await self.begin()

    async def event(self, data: Json, name: str = "") -> None:
        head = f"event: {name}\n" if name else ""
        await self._put(h11.Data(data=head.encode() + b"data: " + json.dumps(data).encode() + b"\n\n"))

    async def end(self) -> None:
        await self._put(h11.EndOfMessage())

    async def _chunk(self, delta: Json, finish_reason: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        await self.event({"object": "chat.completion.chunk", "choices": [choice], "usage": None})

    async def _put(self, *events: Any) -> None:
        await self.stream.send_all(b"".join(self.connection.send(event) or b"" for event in events))


@attrs.define
class MessagesReply(Reply):
    """Anthropic's `/v1/messages`."""

    _block: int = -1
    _is_text: bool = False

    async def refuse(self, status: int, code: str, message: str, headers: list[tuple[str, str]] | None = None) -> None:
        kinds = {401: "authentication_error", 429: "rate_limit_error", 503: "overloaded_error"}
        error = {"type": "error", "error": {"type": kinds.get(status, "api_error"), "message": f"{message} ({code})"}}
        await self.send(status, "application/json", json.dumps(error).encode(), headers)

    async def begin(self) -> None:
        message = {
            "id": f"msg_{self.name}", "type": "message", "role": "assistant", "model": "test-model", "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": PROMPT_TOKENS, "output_tokens": 0},
        }  # fmt: skip
        await self._say("message_start", message=message)

    async def text(self, text: str) -> None:
        await self.open()
        if not self._is_text:
            self._is_text = True
            self._block += 1
            await self._say("content_block_start", index=self._block, content_block={"type": "text", "text": ""})
        await self._say("content_block_delta", index=self._block, delta={"type": "text_delta", "text": text})

    async def thought(self, text: str) -> None:
        await self.open()
        await self._say("ping")

    async def call(self, calls: list[tuple[str, str]]) -> None:
        await self.open()
        await self._end_text()
        for number, (name, arguments) in enumerate(calls):
            self._block += 1
            block = {"type": "tool_use", "id": f"toolu_{self.name}_{number}", "name": name, "input": {}}
            await self._say("content_block_start", index=self._block, content_block=block)
            delta = {"type": "input_json_delta", "partial_json": arguments}
            await self._say("content_block_delta", index=self._block, delta=delta)
            await self._say("content_block_stop", index=self._block)
        await self.finish("tool_use", 1)

    async def finish(self, reason: str, tokens: int) -> None:
        await self.open()
        await self._end_text()
        reason = {"stop": "end_turn", "content_filter": "refusal"}.get(reason, reason)
        delta = {"stop_reason": reason, "stop_sequence": None}
        await self._say("message_delta", delta=delta, usage={"output_tokens": tokens})
        await self._say("message_stop")
        await self.end()

    async def fail(self, code: str) -> None:
        await self.open()
        await self._say("error", error={"type": code, "message": "made up"})
        await self.end()

    async def _end_text(self) -> None:
        if self._is_text:
            self._is_text = False
            await self._say("content_block_stop", index=self._block)

    async def _say(self, kind: str, **fields: Any) -> None:
        await self.event({"type": kind, **fields}, kind)


@attrs.define
class ResponsesReply(Reply):
    """OpenAI's `/v1/responses`."""

    _number: int = -1
    _text: str = ""
    _items: list[Json] = attrs.field(factory=list)

    async def begin(self) -> None:
        await self._say("response.created", response=self._response("in_progress"))

    async def text(self, text: str) -> None:
        await self.open()
        if not self._text:
            item = {
                "type": "message",
                "id": f"msg_{self.name}",
                "role": "assistant",
                "status": "in_progress",
                "content": [],
            }
            await self._say("response.output_item.added", output_index=0, item=item)
            part = {"type": "output_text", "text": "", "annotations": []}
            await self._say(
                "response.content_part.added", item_id=f"msg_{self.name}", output_index=0, content_index=0, part=part
            )
        self._text += text
        await self._say(
            "response.output_text.delta", item_id=f"msg_{self.name}", output_index=0, content_index=0, delta=text
        )

    async def thought(self, text: str) -> None:
        await self.open()

    async def call(self, calls: list[tuple[str, str]]) -> None:
        await self.open()
        await self._end_text()
        for number, (name, arguments) in enumerate(calls):
            item = {
                "type": "function_call", "id": f"fc_{self.name}_{number}", "call_id": f"call_{self.name}_{number}",
                "name": name, "arguments": arguments, "status": "completed",
            }  # fmt: skip
            self._items.append(item)
            await self._say("response.output_item.added", output_index=number, item=item)
            await self._say("response.output_item.done", output_index=number, item=item)
        await self.finish("tool_calls", 1)

    async def finish(self, reason: str, tokens: int) -> None:
        await self.open()
        await self._end_text()
        usage = {
            "input_tokens": PROMPT_TOKENS, "output_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens,
            "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
        }  # fmt: skip
        await self._say("response.completed", response=self._response("completed") | {"usage": usage})
        await self.end()

    async def fail(self, code: str) -> None:
        await self.open()
        error = {"code": code, "message": "made up"}
        await self._say("response.failed", response=self._response("failed") | {"error": error})
        await self.end()

    async def _end_text(self) -> None:
        if self._text:
            part = {"type": "output_text", "text": self._text, "annotations": []}
            item = {
                "type": "message",
                "id": f"msg_{self.name}",
                "role": "assistant",
                "status": "completed",
                "content": [part],
            }
            self._items.append(item)
            await self._say("response.output_item.done", output_index=0, item=item)
            self._text = ""

    def _response(self, status: str) -> Json:
        return {
            "id": f"resp_{self.name}", "object": "response", "created_at": 1, "status": status, "model": "test-model",
            "output": list(self._items), "error": None, "usage": None,
        }  # fmt: skip

    async def _say(self, kind: str, **fields: Any) -> None:
        self._number += 1
        await self.event({"type": kind, "sequence_number": self._number, **fields}, kind)


DIALECTS = {
    "/v1/chat/completions": Reply,
    "/v1/messages": MessagesReply,
    "/v1/responses": ResponsesReply,
}

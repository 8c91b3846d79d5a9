"""A turn as OpenAI's chat completions: the chunks of a stream, and the answer in one piece. Pure.

A stream ends with `[DONE]`, or with one frame `{"error": …}` and nothing behind it: clients raise at that frame, and
take a `[DONE]` for success.
"""

from __future__ import annotations

from typing import Any

from edge import sse
from edge.dialects.encoder import Collector, Encoder, Head, question_text, usage_numbers
from edge.dialects.openai_errors import turn_error
from edge.dialects.reply import CANCELLED, Asked, Cancelled, Completed, Failed, Said, Step

Json = dict[str, Any]
DONE = b"data: [DONE]\n\n"


class ChatStream(Encoder):
    """`with_usage`: the client asked for `stream_options.include_usage`."""

    def __init__(self, head: Head, *, with_usage: bool) -> None:
        super().__init__(head)
        self._with_usage = with_usage
        self._spoke = False

    def begin(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def step(self, step: Step) -> bytes:
        match step:
            case Said(text):
                self._spoke = True
                return self._chunk({"content": text})
            case Asked():
                text = question_text(step, behind_text=self._spoke)
                return self._chunk({"content": text}) + self._end("stop", None)
            case Completed(usage, calls, _):
                said = b"".join(self._chunk({"tool_calls": [_call(call, n)]}) for n, call in enumerate(calls))
                return said + self._end("tool_calls" if calls else "stop", usage)
            case Failed(code, message, _):
                return sse.data_frame({"error": turn_error(code, message)})
            case Cancelled():
                return sse.data_frame({"error": turn_error(CANCELLED, "The turn was cancelled.")})
        return b""

    def _end(self, reason: str, usage: Json | None) -> bytes:
        sent = self._chunk({}, reason)
        if self._with_usage:
            sent += sse.data_frame(_envelope(self.head, "chat.completion.chunk", [], _usage(usage)))
        return sent + DONE

    def _chunk(self, delta: Json, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = _envelope(self.head, "chat.completion.chunk", [choice])
        return sse.data_frame(chunk | {"usage": None} if self._with_usage else chunk)


def chat_completion(head: Head, collected: Collector) -> Json:
    """The answer in one piece, of a turn that completed or asks."""
    end, text = collected.end, collected.text
    message: Json = {"role": "assistant", "content": text, "refusal": None}
    reason, usage = "stop", None
    if isinstance(end, Asked):
        message["content"] = text + question_text(end, behind_text=bool(text))
    elif isinstance(end, Completed):
        usage = end.usage
        if end.tool_calls:
            reason = "tool_calls"
            message |= {"content": text or None, "tool_calls": [_call(call) for call in end.tool_calls]}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    return _envelope(head, "chat.completion", [choice], _usage(usage))


def _envelope(head: Head, kind: str, choices: list[Json], usage: Json | None = None) -> Json:
    answer: Json = {
        "id": f"chatcmpl-{head.name}",
        "object": kind,
        "created": head.created_ms // 1000,
        "model": head.agent_id,
        "choices": choices,
    }
    return answer if usage is None else answer | {"usage": usage}


def _usage(usage: Json | None) -> Json:
    sent, got, total = usage_numbers(usage)
    return {"prompt_tokens": sent, "completion_tokens": got, "total_tokens": total}


def _call(call: Json, index: int | None = None) -> Json:
    function = {"name": call["name"], "arguments": call["arguments"]}
    found = {"id": call["id"], "type": "function", "function": function}
    return found if index is None else {"index": index} | found

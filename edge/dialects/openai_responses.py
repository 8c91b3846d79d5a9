"""A turn as OpenAI's Responses: the events of a stream, and the answer in one piece. Pure.

A response's id names conversation and turn, so that `previous_response_id` finds them without any table. A stream ends
with `response.completed`, or with `response.failed`; in front of that stands an `error` event with an `error` object,
since clients raise at the one and only pass on the other.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from edge import sse
from edge.dialects.encoder import Collector, Encoder, Head, question_text, usage_numbers
from edge.dialects.openai_errors import turn_error
from edge.dialects.reply import CANCELLED, Asked, Cancelled, Completed, Failed, Said, Step

Json = dict[str, Any]
_PREFIX = "resp_"


def response_id(head: Head) -> str:
    raw = f"{head.conversation_id} {head.name}".encode()  # neither holds a blank
    return _PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def conversation_of(response_id: str) -> str | None:
    """The conversation's id; None for what was never an id of ours."""
    text = response_id.removeprefix(_PREFIX)
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        return None
    conversation_id, blank, _ = raw.partition(" ")
    return conversation_id if blank and response_id.startswith(_PREFIX) else None


class ResponseStream(Encoder):
    """`echo`: what the request said and the response repeats."""

    def __init__(self, head: Head, echo: Json) -> None:
        super().__init__(head)
        self._echo = echo
        self._number = 0
        self._said: list[str] = []

    def begin(self) -> bytes:
        response = self._response("in_progress", [])
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def step(self, step: Step) -> bytes:
        match step:
            case Said(text):
                return self._say(text)
            case Asked():
                said = self._say(question_text(step, behind_text=bool(self._said)))
                return said + self._complete(Completed())
            case Completed():
                return self._complete(step)
            case Failed(code, message, _):
                return self._fail(turn_error(code, message))
            case Cancelled():
                return self._fail(turn_error(CANCELLED, "The turn was cancelled."))
        return b""

    def _say(self, text: str) -> bytes:
        opened = b"" if self._said else self._open()
        self._said.append(text)
        return opened + self._part_event("response.output_text.delta", delta=text, logprobs=[])

    def _open(self) -> bytes:
        item = _message(self.head, "", "in_progress") | {"content": []}
        added = self._event("response.output_item.added", output_index=0, item=item)
        return added + self._part_event("response.content_part.added", part=_part(""))

    def _complete(self, end: Completed) -> bytes:
        text = "".join(self._said)
        sent = b"" if self._said or end.tool_calls else self._open()
        speaks = bool(self._said) or not end.tool_calls
        if speaks:
            sent += self._part_event("response.output_text.done", text=text, logprobs=[])
            sent += self._part_event("response.content_part.done", part=_part(text))
            item = _message(self.head, text, "completed")
            sent += self._event("response.output_item.done", output_index=0, item=item)
        for index, call in enumerate(end.tool_calls, int(speaks)):
            sent += self._call(index, call)
        output = _output(self.head, text, end, speaks=speaks)
        return sent + self._event("response.completed", response=self._response("completed", output, end.usage))

    def _call(self, index: int, call: Json) -> bytes:
        item = _function_call(call)
        place = {"item_id": item["id"], "output_index": index}
        begun = item | {"status": "in_progress", "arguments": ""}
        sent = self._event("response.output_item.added", output_index=index, item=begun)
        sent += self._event("response.function_call_arguments.delta", **place, delta=call["arguments"])
        done = {"name": call["name"], "arguments": call["arguments"]}
        sent += self._event("response.function_call_arguments.done", **place, **done)
        return sent + self._event("response.output_item.done", output_index=index, item=item)

    def _fail(self, error: Json) -> bytes:
        about = {"code": error["code"], "message": error["message"]}
        raised = self._event("error", **about, param=None, error=error)
        text = "".join(self._said)
        output = [_message(self.head, text, "incomplete")] if text else []
        return raised + self._event("response.failed", response=self._response("failed", output) | {"error": about})

    def _part_event(self, kind: str, **fields: Any) -> bytes:
        place = {"item_id": f"msg_{self.head.name}", "output_index": 0, "content_index": 0}
        return self._event(kind, **place, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return sse.frame(kind, data)

    def _response(self, status: str, output: list[Json], usage: Json | None = None) -> Json:
        return _response(self.head, self._echo, status, output, usage if status == "completed" else None)


def response_object(head: Head, echo: Json, collected: Collector) -> Json:
    """The answer in one piece, of a turn that completed or asks."""
    end, text = collected.end, collected.text
    if isinstance(end, Asked):
        text += question_text(end, behind_text=bool(text))
    completed = end if isinstance(end, Completed) else Completed()
    output = _output(head, text, completed, speaks=bool(text) or not completed.tool_calls)
    return _response(head, echo, "completed", output, completed.usage)


def _output(head: Head, text: str, end: Completed, *, speaks: bool) -> list[Json]:
    said = [_message(head, text, "completed")] if speaks else []
    return said + [_function_call(call) for call in end.tool_calls]


def _response(head: Head, echo: Json, status: str, output: list[Json], usage: Json | None) -> Json:
    sent, got, total = usage_numbers(usage)
    numbers = {
        "input_tokens": sent,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": got,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": total,
    }
    return {
        "id": response_id(head),
        "object": "response",
        "created_at": head.created_ms // 1000,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": head.agent_id,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "conversation": {"id": head.conversation_id},
        "usage": numbers if status == "completed" else None,
    } | echo


def _message(head: Head, text: str, status: str) -> Json:
    item_id = f"msg_{head.name}"
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": [_part(text)]}


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _function_call(call: Json) -> Json:
    return {
        "id": f"fc_{call['id']}",
        "type": "function_call",
        "status": "completed",
        "call_id": call["id"],
        "name": call["name"],
        "arguments": call["arguments"],
    }

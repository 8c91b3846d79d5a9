"""A turn as the UI message stream of Vercel's AI SDK (`x-vercel-ai-ui-message-stream: v1`). Pure.

The same events give the same parts again, so a resumed stream is a full replay from `start`. A stream ends with
`finish`, `error` or `abort`, and then `[DONE]`. What this dialect has no word for goes into `data-*` parts, of which
those marked transient are not kept in the message.
"""

from __future__ import annotations

import json
from typing import Any

from edge import sse
from edge.dialects.encoder import Encoder, Head
from edge.dialects.openai_chat import DONE
from edge.dialects.reply import Answered, Asked, Cancelled, Completed, Doing, Failed, Remark, Said, Step

Json = dict[str, Any]
HEADER = "x-vercel-ai-ui-message-stream"
VERSION = "v1"
_TEXT_ID = "text"


class UiStream(Encoder):
    """`answer_url`: the address that takes a question's answer, with `{}` for the question's id."""

    question_ends = False  # the page answers at another address while this stream goes on

    def __init__(self, head: Head, answer_url: str) -> None:
        super().__init__(head)
        self._answer_url = answer_url
        self._open = False
        self._questions: dict[str, Json] = {}

    def begin(self) -> bytes:
        about = {"conversation": self.head.conversation_id, "message": self.head.message_id}
        start = {"type": "start", "messageId": self.head.turn_id, "messageMetadata": about}
        return _frames(start, {"type": "start-step"})

    def step(self, step: Step) -> bytes:
        match step:
            case Said(text):
                opening = [] if self._open else [{"type": "text-start", "id": _TEXT_ID}]
                self._open = True
                return _frames(*opening, {"type": "text-delta", "id": _TEXT_ID, "delta": text})
            case Doing(status, phase):
                return _frames(_data("status", {"status": status, "phase": phase}, transient=True))
            case Remark(content):
                return _frames(_data("remark", {"content": content}, transient=True))
            case Asked(question_id, prompt, options):
                url = self._answer_url.format(question_id)
                data = {"questionId": question_id, "prompt": prompt, "options": options, "answerUrl": url}
                self._questions[question_id] = data
                return _frames(_data("question", data, id=question_id))
            case Answered(question_id, answer):
                data = self._questions[question_id] | {"answer": answer}
                return _frames(_data("question", data, id=question_id))
            case Completed():
                return self._complete(step)
            case Failed(code, message, _):
                return self._close() + _frames({"type": "error", "errorText": f"{message} ({code})"}) + DONE
            case Cancelled():
                told = _data("cancelled", {"message": self.head.message_id})
                return self._close() + _frames(told, {"type": "abort", "reason": "cancelled"}) + DONE
        return b""

    def _complete(self, end: Completed) -> bytes:
        parts = [_data("file", file, id=file["fileId"]) for file in end.files]
        parts += [_tool(call) for call in end.tool_calls]
        reason = "tool-calls" if end.tool_calls else "stop"
        finish: Json = {"type": "finish", "finishReason": reason}
        if end.usage is not None:
            finish["messageMetadata"] = {"usage": end.usage}
        return self._close() + _frames(*parts, {"type": "finish-step"}, finish) + DONE

    def _close(self) -> bytes:
        if not self._open:
            return b""
        self._open = False
        return _frames({"type": "text-end", "id": _TEXT_ID})


def _frames(*parts: Json) -> bytes:
    return b"".join(sse.data_frame(part) for part in parts)


def _data(name: str, data: Json, *, id: str | None = None, transient: bool = False) -> Json:
    part: Json = {"type": f"data-{name}", "data": data}
    if id is not None:
        part["id"] = id
    return part | {"transient": True} if transient else part


def _tool(call: Json) -> Json:
    return {
        "type": "tool-input-available",
        "toolCallId": call["id"],
        "toolName": call["name"],
        "input": _input(call["arguments"]),
    }


def _input(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments  # as the model wrote it

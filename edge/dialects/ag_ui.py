"""A turn as AG-UI 1.0: `RUN_STARTED`, then exactly one `RUN_FINISHED` or `RUN_ERROR`. Pure.

This dialect can take text back: when an attempt begins anew, a snapshot of the messages without the reply removes it. A
question is an interrupt, which the next run resumes.
"""

from __future__ import annotations

from typing import Any

from edge import sse
from edge.dialects.encoder import Encoder, Head, usage_numbers
from edge.dialects.reply import Anew, Asked, Cancelled, Completed, Doing, Failed, Remark, Said, Step

Json = dict[str, Any]
PROTOCOL_VERSION = "1.0"


class AgUiStream(Encoder):
    """`messages`: what the client sent, and shows."""

    can_forget = True

    def __init__(self, head: Head, thread_id: str, run_id: str, messages: list[Json]) -> None:
        super().__init__(head)
        self._run = {"threadId": thread_id, "runId": run_id}
        self._messages = messages
        self._texts = 0
        self._open: str | None = None

    def begin(self) -> bytes:
        return _frames({"type": "RUN_STARTED", **self._run, "protocolVersion": PROTOCOL_VERSION})

    def step(self, step: Step) -> bytes:
        match step:
            case Said(text):
                opening = self._opening()
                return opening + _frames({"type": "TEXT_MESSAGE_CONTENT", "messageId": self._open, "delta": text})
            case Anew():
                return self._close() + _frames({"type": "MESSAGES_SNAPSHOT", "messages": self._messages})
            case Doing(status, phase):
                return _frames(_custom("status", {"status": status, "phase": phase}))
            case Remark(content):
                return _frames(_custom("remark", {"content": content}))
            case Asked(question_id, prompt, options):
                interrupt: Json = {"id": question_id, "reason": "question", "message": prompt}
                if options:
                    interrupt["responseSchema"] = {"type": "string", "enum": options}
                return self._close() + self._finish({"type": "interrupt", "interrupts": [interrupt]})
            case Completed():
                return self._complete(step)
            case Failed(code, message, _):
                return self._close() + _frames({"type": "RUN_ERROR", "message": message, "code": code})
            case Cancelled():
                return self._close() + self._finish({"type": "cancelled"})
        return b""

    def _complete(self, end: Completed) -> bytes:
        sent = self._close()
        for call in end.tool_calls:
            place = {"toolCallId": call["id"]}
            sent += _frames(
                {"type": "TOOL_CALL_START", **place, "toolCallName": call["name"]},
                {"type": "TOOL_CALL_ARGS", **place, "delta": call["arguments"]},
                {"type": "TOOL_CALL_END", **place},
            )
        if end.files:
            sent += _frames(_custom("files", {"files": list(end.files)}))
        outcome: Json = {"type": "success"}
        if end.tool_calls:
            outcome["pendingToolCallIds"] = [call["id"] for call in end.tool_calls]
        return sent + self._finish(outcome, end.usage)

    def _finish(self, outcome: Json, usage: Json | None = None) -> bytes:
        event: Json = {"type": "RUN_FINISHED", **self._run, "outcome": outcome}
        if usage:
            sent, got, total = usage_numbers(usage)
            event["usage"] = [{"inputTokens": sent, "outputTokens": got, "totalTokens": total}]
        return _frames(event)

    def _opening(self) -> bytes:
        if self._open is not None:
            return b""
        self._texts += 1
        self._open = f"{self._run['runId']}-{self._texts}"
        return _frames({"type": "TEXT_MESSAGE_START", "messageId": self._open, "role": "assistant"})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        message_id, self._open = self._open, None
        return _frames({"type": "TEXT_MESSAGE_END", "messageId": message_id})


def _frames(*events: Json) -> bytes:
    return b"".join(sse.data_frame(event) for event in events)


def _custom(name: str, value: Json) -> Json:
    return {"type": "CUSTOM", "name": name, "value": value}

"""What requests of web pages ask for: Vercel's AI SDK and AG-UI. Pure."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from edge.dialects.messages import TOOLS, Asking, BadMessages, Spoken, asking, call_of, list_of, text_of_parts

Json = dict[str, Any]
MAX_NAME_CHARS = 512


class UiRequest(msgspec.Struct, frozen=True):
    """`message_id`: the page's own of its newest message; None when it wants another reply, or changed a message."""

    chat: str
    message_id: str | None
    asking: Asking


def ui_request(body: Json) -> UiRequest:
    """Raises BadMessages."""
    chat = _name(body, "id")
    messages = list_of(body, "messages")
    newest = max((n for n, item in enumerate(messages) if item.get("role") == "assistant"), default=-1)
    spoken: list[Spoken] = []
    for index, message in enumerate(messages):
        spoken += _ui_message(message, strict=index > newest)
    asked = asking(spoken, "messages", _tools(body))
    last = messages[-1].get("id")
    anew = body.get("trigger") == "regenerate-message" or body.get("messageId") is not None
    return UiRequest(
        chat, last if isinstance(last, str) and not anew and messages[-1]["role"] == "user" else None, asked
    )


class AgUiRequest(msgspec.Struct, frozen=True):
    """`answer`: to an interrupt, with the question's id; None in it: an answer is not wanted any more."""

    thread: str
    run: str
    messages: list[Json]
    answer: tuple[str, str | None]
    asking: Asking | None  # None: the run does nothing but answer


def ag_ui_request(body: Json) -> AgUiRequest:
    """Raises BadMessages."""
    thread, run = _name(body, "threadId"), _name(body, "runId")
    answer = _answer(body.get("resume") or [])
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(item, dict) for item in messages):
        raise BadMessages("messages", "`messages` must be a list of messages.")
    if answer is not None:
        return AgUiRequest(thread, run, messages, answer, None)
    newest = max((n for n, item in enumerate(messages) if item.get("role") == "assistant"), default=-1)
    spoken = [said for n, item in enumerate(messages) if (said := _ag_ui_message(item, strict=n > newest)) is not None]
    payload = _tools(body)
    if further := {name: body[name] for name in ("state", "context", "forwardedProps") if body.get(name)}:
        payload["agUi"] = further
    return AgUiRequest(thread, run, messages, ("", None), asking(spoken, "messages", payload))


def _tools(body: Json) -> Json:
    """What the page can carry out: `{name, description, parameters}`."""
    tools = body.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise BadMessages("tools", "`tools` must be a list of tools.")
    return {TOOLS: tools} if tools else {}


def _name(body: Json, field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME_CHARS:
        raise BadMessages(field, f"`{field}` must be a text of 1 to {MAX_NAME_CHARS} characters.")
    return value


def _ui_message(message: Json, *, strict: bool) -> list[Spoken]:
    """A message of the page; behind an assistant's come the results of the calls that the page carried out."""
    role = message.get("role")
    if role not in ("system", "user", "assistant"):
        raise BadMessages("messages", "A message's `role` must be system, user or assistant.")
    parts = message.get("parts")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise BadMessages("messages", "A message's `parts` must be a list of parts.")
    calls = [part for part in parts if part.get("type") == "dynamic-tool" or str(part.get("type")).startswith("tool-")]
    told = [part for part in parts if not str(part.get("type")).startswith("data-") and part not in calls]
    text = text_of_parts(told, "messages", lambda part: part.get("type") == "text", strict=strict)
    made = [_ui_call(part) for part in calls]
    done = [
        Spoken("tool", _as_text(part.get("output", part.get("errorText", ""))), call_id=call["id"])
        for part, call in zip(calls, made, strict=True)
        if part.get("state") in ("output-available", "output-error")
    ]
    return [Spoken(role, text, tuple(made)), *done]


def _ui_call(part: Json) -> Json:
    name = part.get("toolName") or str(part.get("type")).removeprefix("tool-")
    return call_of(part.get("toolCallId"), name, json.dumps(part.get("input") or {}), "messages")


def _ag_ui_message(message: Json, *, strict: bool) -> Spoken | None:
    role = message.get("role")
    if role in ("activity", "reasoning"):
        return None
    if role not in ("system", "developer", "user", "assistant", "tool"):
        raise BadMessages("messages", "A message's `role` must be system, developer, user, assistant or tool.")
    text = text_of_parts(message.get("content"), "messages", lambda part: part.get("type") == "text", strict=strict)
    calls = message.get("toolCalls") or []
    if not isinstance(calls, list):
        raise BadMessages("messages", "`toolCalls` must be a list.")
    made = []
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise BadMessages("messages", "Each of `toolCalls` must be a call of a function.")
        made.append(call_of(call.get("id"), function.get("name"), function.get("arguments"), "messages"))
    call_id = message.get("toolCallId")
    if role == "tool" and not isinstance(call_id, str):
        raise BadMessages("messages", "A tool's message must have the `toolCallId` of the call.")
    return Spoken("system" if role == "developer" else role, text, tuple(made), call_id if role == "tool" else None)


def _answer(resume: Any) -> tuple[str, str | None] | None:
    """A turn asks one question at a time, so a run ends with one interrupt and the next one resumes one."""
    if resume == []:
        return None
    if not isinstance(resume, list) or len(resume) != 1 or not isinstance(resume[0], dict):
        raise BadMessages(
            "resume", "`resume` must be a list of one entry, for the interrupt that the last run ended with."
        )
    [entry] = resume
    identifier, status = entry.get("interruptId"), entry.get("status")
    if not isinstance(identifier, str) or status not in ("resolved", "cancelled"):
        raise BadMessages("resume", "The entry of `resume` must have an `interruptId` and be resolved or cancelled.")
    return identifier, None if status == "cancelled" else _as_text(entry.get("payload"))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

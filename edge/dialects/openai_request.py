"""What requests to OpenAI's addresses ask for. Pure.

Owns both forms: the messages of chat completions, and the items of Responses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge.dialects.messages import (
    TOOL_CHOICE,
    TOOLS,
    Asking,
    BadMessages,
    Spoken,
    asking,
    call_of,
    list_of,
    text_of_parts,
)

Json = dict[str, Any]
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_ROLES = {"developer": "system", "function": "tool"}
# What a model is asked with, by the names of chat completions, which is how a worker gets it.
_PARAMETERS = (
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed", "presence_penalty",
    "frequency_penalty", "reasoning_effort", "response_format", "parallel_tool_calls", "metadata",
)  # fmt: skip
PARAMETERS = "parameters"


def chat_request(body: Json) -> Asking:
    """Raises BadMessages."""
    if body.get("n") not in (None, 1):
        raise BadMessages("n", "`n` must be 1: an agent replies once.")
    messages = list_of(body, "messages")
    newest = _newest(messages)
    spoken = [_message(item, strict=index > newest) for index, item in enumerate(messages)]
    parameters = {name: body.get(name) for name in _PARAMETERS}
    return asking(spoken, "messages", _payload(body, _chat_tool, parameters))


def responses_request(body: Json) -> Asking:
    """Raises BadMessages."""
    instructions = body.get("instructions")
    if instructions is not None and not isinstance(instructions, str):
        raise BadMessages("instructions", "`instructions` must be a text.")
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else list_of(body, "input")
    newest = _newest(items)
    spoken = [said for n, item in enumerate(items) if (said := _item(item, strict=n > newest)) is not None]
    return asking(spoken, "input", _payload(body, _responses_tool, _responses_parameters(body)), instructions or "")


def _newest(messages: list[Json]) -> int:
    """Where the assistant's last message stands; what is behind it is new."""
    return max((n for n, item in enumerate(messages) if item.get("role") == "assistant"), default=-1)


def _message(item: Json, *, strict: bool) -> Spoken:
    role = item.get("role")
    if role not in ("system", "developer", "user", "assistant", "tool", "function"):
        raise BadMessages("messages", "A message's `role` must be system, developer, user, assistant or tool.")
    text = text_of_parts(item.get("content"), "messages", _is_text, strict=strict)
    calls = item.get("tool_calls") or []
    if not isinstance(calls, list):
        raise BadMessages("messages", "`tool_calls` must be a list.")
    call_id = item.get("tool_call_id")
    if role == "tool" and not isinstance(call_id, str):
        raise BadMessages("messages", "A tool's message must have the `tool_call_id` of the call.")
    made = tuple(_call(call) for call in calls)
    return Spoken(_ROLES.get(str(role), str(role)), text, made, call_id if role == "tool" else None)


def _call(call: Any) -> Json:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise BadMessages("messages", "Each of `tool_calls` must be a call of a function.")
    return call_of(call.get("id"), function.get("name"), function.get("arguments"), "messages")


def _item(item: Json, *, strict: bool) -> Spoken | None:
    """None for what says nothing here, as a model's reasoning."""
    match item.get("type", "message"):
        case "message":
            return _message(item, strict=strict) if item.get("role") != "tool" else None
        case "function_call":
            return Spoken(
                "assistant", "", (call_of(item.get("call_id"), item.get("name"), item.get("arguments"), "input"),)
            )
        case "function_call_output":
            if not isinstance(item.get("call_id"), str):
                raise BadMessages("input", "A function's output must have the `call_id` of the call.")
            text = text_of_parts(item.get("output"), "input", _is_text, strict=strict)
            return Spoken("tool", text, call_id=item["call_id"])
    return None


def _is_text(part: Json) -> bool:
    return part.get("type") in _TEXT_PARTS


def _payload(body: Json, tool_of: Callable[[Json], Json | None], parameters: Json) -> Json:
    payload: Json = {}
    if tools := body.get("tools"):
        if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
            raise BadMessages("tools", "`tools` must be a list of tools.")
        payload[TOOLS] = [found for tool in tools if (found := tool_of(tool)) is not None]
    if (choice := body.get("tool_choice")) is not None:
        payload[TOOL_CHOICE] = _choice(choice)
    if told := {name: value for name, value in sorted(parameters.items()) if value is not None}:
        payload[PARAMETERS] = told
    return payload


def _choice(choice: Any) -> str | Json:
    """`auto`, `none`, `required`, or `{name}`; chat completions have the name in a table of its own."""
    if choice in ("auto", "none", "required"):
        return str(choice)
    if isinstance(choice, dict) and choice.get("type") == "function":
        function = choice.get("function", choice)
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            return {"name": function["name"]}
    raise BadMessages("tool_choice", "`tool_choice` must be auto, none, required, or name a function.")


def _responses_parameters(body: Json) -> Json:
    """Those of Responses that chat completions have under another name, or elsewhere."""
    found = {name: body.get(name) for name in ("temperature", "top_p", "parallel_tool_calls", "metadata")}
    reasoning, text = body.get("reasoning"), body.get("text")
    found["max_completion_tokens"] = body.get("max_output_tokens")
    if isinstance(reasoning, dict):
        found["reasoning_effort"] = reasoning.get("effort")
    if isinstance(text, dict) and isinstance(text.get("format"), dict):
        form = dict(text["format"])
        kind = form.pop("type", None)
        found["response_format"] = {"type": kind, kind: form} if kind == "json_schema" else {"type": kind}
    return found


def _chat_tool(tool: Json) -> Json | None:
    function = tool.get("function")
    return dict(function) if tool.get("type") == "function" and isinstance(function, dict) else None


def _responses_tool(tool: Json) -> Json | None:
    if tool.get("type") != "function":
        return None  # a service of that provider's
    return {name: tool[name] for name in ("name", "description", "parameters", "strict") if name in tool}

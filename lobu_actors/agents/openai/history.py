"""Between the session file's messages and the messages of a chat request. Pure.

Owns both forms. The session file's is that of the pi coding agent (version 3): an assistant's content has `text` and
`toolCall` parts, and each call's result is a message of role `toolResult`. A request must answer each call right behind
the message that made it, or providers refuse it; a file may have been written by another program, or cut.
"""

import json
from collections.abc import Iterable
from typing import Any

from lobu_actors.agents.openai.dialect import Answer, Call
from lobu_actors.contract.session_file import text_of
from lobu_actors.worker.session import FROM_CLIENT

Json = dict[str, Any]
NO_RESULT = "No result is known."


def to_chat(messages: Iterable[Json]) -> list[Json]:
    """The messages of a session as a request carries them, without other roles and results of no call.

    A result that a client sent counts, whether its call is known or not: then it is what the user says.
    """
    chat: list[Json] = []
    open_calls: list[str] = []
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role == "toolResult":
            if message.get("toolCallId") in open_calls:
                open_calls.remove(message["toolCallId"])
                chat.append(tool_result(message["toolCallId"], text_of(content)))
                continue
            role = "user" if message.get(FROM_CLIENT) is True else None
        if role not in ("user", "assistant"):
            continue
        chat += [tool_result(identifier, NO_RESULT) for identifier in open_calls]
        open_calls = []
        if role == "user":
            chat.append({"role": "user", "content": text_of(content)})
        else:
            calls = _calls_of(content)
            open_calls = [call.id for call in calls]
            if calls or text_of(content):
                chat.append(assistant(text_of(content), calls))
    return chat + [tool_result(identifier, NO_RESULT) for identifier in open_calls]


def assistant(text: str, calls: list[Call]) -> Json:
    """An assistant's message in a request."""
    message: Json = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}
            for call in calls
        ]
    return message


def tool_result(call_id: str, text: str) -> Json:
    """A call's result in a request."""
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def entry_of_user(text: str) -> Json:
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def entry_of_answer(answer: Answer, provider: str, model: str, usage: Json | None) -> Json:
    """An assistant's message in the session file. `usage`: of the whole turn, in its last message only."""
    parts: list[Json] = [{"type": "text", "text": answer.text}] if answer.text or not answer.calls else []
    for call in answer.calls:
        parts.append(
            {"type": "toolCall", "id": call.id, "name": call.name, "arguments": arguments_of(call.arguments) or {}}
        )
    stop = "toolUse" if answer.calls else "length" if answer.finish_reason == "length" else "stop"
    entry: Json = {
        "role": "assistant",
        "content": parts,
        "api": "openai-completions",
        "provider": provider,
        "model": model,
        "stopReason": stop,
    }
    return entry if usage is None else entry | {"usage": usage}


def entry_of_result(call: Call, text: str, is_error: bool) -> Json:
    return {
        "role": "toolResult",
        "toolCallId": call.id,
        "toolName": call.name,
        "content": [{"type": "text", "text": text}],
        "isError": is_error,
    }


def arguments_of(text: str) -> Json | None:
    """A call's arguments; none at all are an empty table. None when they are no JSON object."""
    try:
        arguments = json.loads(text or "{}")
    except ValueError:
        return None
    return arguments if isinstance(arguments, dict) else None


def _calls_of(content: Any) -> list[Call]:
    parts = content if isinstance(content, list) else []
    return [
        Call(part["id"], part["name"], json.dumps(part.get("arguments") or {}))
        for part in parts
        if isinstance(part, dict)
        and part.get("type") == "toolCall"
        and isinstance(part.get("id"), str)
        and isinstance(part.get("name"), str)
    ]

"""What a client's list of messages asks for: the new message, and what came before it. Pure.

Clients of these dialects send the whole conversation each time. New is what stands behind the assistant's last message;
what stands before it is carried only into a conversation that has nothing of its own yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

Json = dict[str, Any]
HISTORY = "history"  # names in a message's payload, as workers get them
INSTRUCTIONS = "instructions"
TOOLS = "tools"
TOOL_CHOICE = "toolChoice"
TOOL_RESULTS = "toolResults"
ONLY_RESULTS = "onlyResults"


class BadMessages(ValueError):
    """A sentence for the caller; `field` is where."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


class Spoken(msgspec.Struct, frozen=True):
    """One message in a form that all dialects are brought to. `role`: system, user, assistant or tool."""

    role: str
    text: str
    calls: tuple[Json, ...] = ()  # an assistant's: `{id, name, arguments}`
    call_id: str | None = None  # a tool's

    def to_json(self) -> Json:
        said: Json = {"role": self.role, "content": self.text}
        if self.calls:
            said["toolCalls"] = list(self.calls)
        return said if self.call_id is None else said | {"toolCallId": self.call_id}


class Asking(msgspec.Struct, frozen=True):
    """What one request asks for."""

    content: str
    history: tuple[Spoken, ...] = ()
    instructions: str = ""
    results: tuple[Json, ...] = ()  # `{toolCallId, content}` of calls that the client carried out
    speaks: bool = True  # the user says something; else the content is what the results say
    payload: Json = msgspec.field(default_factory=dict)

    def payload_of(self, *, fresh: bool) -> Json:
        """For the worker. `fresh`: nothing was said in the conversation, so what came before goes along."""
        found = dict(self.payload)
        if fresh and self.history:
            found[HISTORY] = [spoken.to_json() for spoken in self.history]
        if self.instructions:
            found[INSTRUCTIONS] = self.instructions
        if self.results:
            found[TOOL_RESULTS] = list(self.results)
        if not self.speaks:
            found[ONLY_RESULTS] = True
        return found


def asking(messages: Sequence[Spoken], field: str, payload: Json, instructions: str = "") -> Asking:
    """Raises BadMessages when there is nothing new to say."""
    last = max((n for n, said in enumerate(messages) if said.role == "assistant"), default=-1)
    new = messages[last + 1 :]
    texts = [said.text for said in new if said.role == "user" and said.text.strip()]
    results = tuple({"toolCallId": said.call_id, "content": said.text} for said in new if said.role == "tool")
    content = "\n\n".join(texts) or "\n\n".join(str(result["content"]) for result in results)
    if not texts and not results:
        raise BadMessages(field, f"`{field}` must end with a message of the user's that has text, or a tool's result.")
    told = [said.text for said in messages if said.role == "system" and said.text]
    return Asking(
        content=content if content.strip() else "(no output)",
        history=tuple(said for said in messages[: last + 1] if said.role != "system"),
        instructions="\n\n".join([instructions, *told] if instructions else told),
        results=results,
        speaks=bool(texts),
        payload=payload,
    )


def list_of(body: Json, field: str) -> list[Json]:
    """Raises BadMessages unless it is a list of objects with something in it."""
    value = body.get(field)
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise BadMessages(field, f"`{field}` must be a list of messages that is not empty.")
    return value


def text_of_parts(content: Any, field: str, is_text: Callable[[Json], bool], *, strict: bool) -> str:
    """The text of a content: a string, nothing, or a list of parts. `strict`: no part may be other than text."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadMessages(field, "A message's content must be a text or a list of parts.")
    texts: list[str] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and is_text(part) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif strict:
            raise BadMessages(
                field, "Only parts of text are taken here; send files to the conversation's `messages` address."
            )
    return "".join(texts)


def call_of(identifier: Any, name: Any, arguments: Any, field: str) -> Json:
    if not all(isinstance(value, str) for value in (identifier, name, arguments)):
        raise BadMessages(field, "A tool call must have an id, a name and arguments, all of them texts.")
    return {"id": identifier, "name": name, "arguments": arguments}

"""The session file as a worker writes it: JSON lines in version 3 of the pi coding agent's form.

Owns how entries look and where the file may be cut. A header line, then entries with `id` and `parentId`; each turn
adds a `message` entry of the user and, once it succeeded, one of the assistant. Every append opens and closes the file,
so that nothing is unwritten when the turn's end is reported.
"""

import json
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

VERSION = 3
CUSTOM = "custom"  # an entry that is no message
FROM_CLIENT = "fromClient"  # a call's result that a client sent, as it sends a message
_MODE = 0o600

Entry = dict[str, Any]


def _now() -> str:
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


def _line(entry: Entry) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode("ascii") + b"\n"


def _said(message: Entry) -> Entry:
    return {"type": "message", "message": message | {"timestamp": int(time.time() * 1000)}}


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or a list of parts of which the text ones count."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text")
    return "".join(part for part in parts if isinstance(part, str))


class SessionFile:
    """One conversation's session file. Raises OSError when it cannot be read or written."""

    def __init__(self, path: str, folder: str) -> None:
        self._path = path
        self._folder = folder
        self._last_id: str | None = None
        self._size = -1  # of the file as this object left it; another size means that someone else wrote it

    def history(self) -> list[Entry]:
        """The messages so far, oldest first: each with `role`, `content` and what else its writer put in."""
        entries = (entry for _start, entry in self._entries())
        return [
            entry["message"]
            for entry in entries
            if entry.get("type") == "message" and isinstance(entry.get("message"), dict)
        ]

    def kept(self, kind: str) -> list[Any]:
        """What turns kept under this name, oldest first."""
        entries = (entry for _start, entry in self._entries())
        return [
            entry.get("data") for entry in entries if (entry.get("type"), entry.get("customType")) == (CUSTOM, kind)
        ]

    def begin(self, texts: list[str], *, again: bool, carried: Any = None, results: Sequence[Entry] = ()) -> int:
        """Add the user's messages. `again`: first cut those that an attempt before this one left unanswered.

        `carried`: what was said elsewhere before the conversation came here, as a client tells it; for a new file only.
        `results`: of calls that the client carried out, `{toolCallId, content}`; they come before the messages.
        Gives the number of messages that were added, what was carried not among them.
        """
        self._catch_up(again=again)
        if isinstance(carried, list) and self._last_id is None:
            self._append([_said(_carried(said)) for said in carried if isinstance(said, dict)])
        names = _names_of_calls(self.history()) if results else {}
        said = [_result_of_client(result, names) for result in results]
        said += [{"role": "user", "content": [{"type": "text", "text": text}]} for text in texts]
        self._append([_said(message) for message in said])
        return len(said)

    def finish(
        self,
        text: str,
        model: str,
        usage: Entry | None,
        recorded: Sequence[Entry] = (),
        kept: Sequence[tuple[str, Any]] = (),
    ) -> None:
        """Add what the turn kept and recorded, and the reply, which may be empty if something was recorded."""
        entries = [{"type": CUSTOM, "customType": kind, "data": data} for kind, data in kept]
        entries += [_said(message) for message in recorded]
        if not text and recorded:
            self._append(entries)
            return
        provider, _, name = model.rpartition("/")
        message: Entry = {
            "role": "assistant",
            "content": [{"type": "text", "text": text}],
            "api": "lobu-worker",
            "provider": provider,
            "model": name,
            "stopReason": "stop",
        }
        if usage is not None:
            message["usage"] = usage
        self._append([*entries, _said(message)])

    def _append(self, entries: Sequence[Entry]) -> None:
        """In one piece: a worker that dies leaves all of them or, but for a full disk, none."""
        lines, parent = b"", self._last_id
        for entry in entries:
            identifier = os.urandom(4).hex()
            kind = {"type": entry["type"], "id": identifier, "parentId": parent, "timestamp": _now()}
            lines += _line(kind | entry)
            parent = identifier
        self._write(lines)
        self._last_id = parent

    def _write(self, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, _MODE)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
            self._size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def _catch_up(self, *, again: bool) -> None:
        """Read what is there unless this object wrote it; cut a torn last line; write the header of a new file."""
        try:
            size = os.stat(self._path).st_size
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self._path), 0o700, exist_ok=True)
            size = 0
        if size == 0:
            self._write_header()
        elif size != self._size or again:
            self._read_last(again=again)

    def _write_header(self) -> None:
        random = os.urandom(16).hex()
        identifier = "-".join((random[:8], random[8:12], "4" + random[13:16], "8" + random[17:20], random[20:]))
        header = {"type": "session", "version": VERSION, "id": identifier, "timestamp": _now(), "cwd": self._folder}
        self._write(_line(header))
        self._last_id = None

    def _read_last(self, *, again: bool) -> None:
        entries = self._entries()
        cut = self._whole
        while again and entries and _is_of_client(entries[-1][1]):
            cut = entries.pop()[0]
        if cut != self._read_size:
            os.truncate(self._path, cut)
        if cut == 0:
            self._write_header()
            return
        self._size = cut
        identified = [entry["id"] for _start, entry in entries if isinstance(entry.get("id"), str)]
        # The header's id names the session and is no entry's parent.
        self._last_id = identified[-1] if identified and entries[-1][1].get("type") != "session" else None

    def _entries(self) -> list[tuple[int, Entry]]:
        """Each whole line that is an object, with its offset; lines that are not are skipped."""
        try:
            with open(self._path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            data = b""
        self._read_size = len(data)
        self._whole = data.rfind(b"\n") + 1
        found: list[tuple[int, Entry]] = []
        start = 0
        for line in data[: self._whole].split(b"\n")[:-1]:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            if isinstance(entry, dict):
                found.append((start, entry))
            start += len(line) + 1
        return found


def _is_of_client(entry: Entry) -> bool:
    """A message of the user's, or the result of a call that the client carried out."""
    message = entry.get("message")
    return isinstance(message, dict) and (message.get("role") == "user" or message.get(FROM_CLIENT) is True)


def _names_of_calls(messages: Iterable[Entry]) -> dict[str, Any]:
    contents = (message.get("content") for message in messages)
    parts = (part for content in contents if isinstance(content, list) for part in content if isinstance(part, dict))
    return {str(part.get("id")): part.get("name") for part in parts if part.get("type") == "toolCall"}


def _result_of_client(result: Entry, names: dict[str, Any]) -> Entry:
    found = _carried({"role": "tool"} | result) | {FROM_CLIENT: True}
    name = names.get(str(result.get("toolCallId")))
    return found if name is None else found | {"toolName": name}


def _carried(said: Entry) -> Entry:
    """A message with the text `content`, an assistant's `toolCalls`, and a tool's `toolCallId`, as an entry has it."""
    parts: list[Entry] = [{"type": "text", "text": text_of(said.get("content"))}]
    if said.get("role") == "tool":
        return {"role": "toolResult", "toolCallId": said.get("toolCallId"), "content": parts, "isError": False}
    if said.get("role") != "assistant":
        return {"role": "user", "content": parts}
    for call in said.get("toolCalls") or ():
        try:
            arguments = json.loads(call["arguments"] or "{}")
        except ValueError:
            arguments = {}
        parts.append({"type": "toolCall", "id": call["id"], "name": call["name"], "arguments": arguments})
    return {"role": "assistant", "content": parts, "stopReason": "stop"}

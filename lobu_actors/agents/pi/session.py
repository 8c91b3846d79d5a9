"""The session file as pi is to find it. Pure, but for `prepare`, which reads and writes it.

Owns what may not be in it when pi opens it. pi glues its next entry to a line that was torn. Its first line names the
folder of the session: pi does not start where that is missing, and would work in it where it is another host's. And pi
writes the user's message at once and what answers it later, so that a pi that is killed leaves a message without an
answer, to which the same message sent again would be added; that can only be where the file itself is what lasts: else
each run begins with what the newest completed one left.
"""

import json
import os
from contextlib import suppress
from typing import Any

Json = dict[str, Any]
ANSWERED = ("stop", "length")


def prepare(path: str, folder: str, *, trim: bool) -> None:
    """Make the file fit, if there is one. `trim`: what is unanswered goes too. Raises OSError."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return
    fit = data[: data.rfind(b"\n") + 1]
    fit = moved(answered(fit) if trim else fit, folder)
    if not fit:
        os.unlink(path)  # pi writes a new one with its first answer
    elif fit != data:
        _replace(path, fit)


def answered(data: bytes) -> bytes:
    """The session up to the first message behind its last answer; nothing when it has no answer."""
    lines = data.splitlines(keepends=True)
    kept, answers, is_open = 0, 0, False
    for number, line in enumerate(lines, start=1):
        message = _message(line)
        if message.get("role") == "user":
            is_open = True
        elif message.get("role") == "assistant" and message.get("stopReason") in ANSWERED:
            is_open, answers = False, answers + 1
        if not is_open:
            kept = number
    return b"".join(lines[:kept]) if answers else b""


def moved(data: bytes, folder: str) -> bytes:
    """The session in this folder."""
    first, _, rest = data.partition(b"\n")
    header = _object(first)
    if header.get("type") != "session" or header.get("cwd") == folder:
        return data
    return json.dumps(header | {"cwd": folder}, separators=(",", ":"), ensure_ascii=False).encode() + b"\n" + rest


def _message(line: bytes) -> Json:
    entry = _object(line)
    message = entry.get("message")
    return message if entry.get("type") == "message" and isinstance(message, dict) else {}


def _object(line: bytes) -> Json:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _replace(path: str, data: bytes) -> None:
    """In one rename, so that a kill in between leaves one or the other."""
    beside = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(beside)
    with open(beside, "xb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(data)
    os.replace(beside, path)


def mark(path: str) -> tuple[int, int, int] | None:
    """By which one sees that the file is another than it was."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns

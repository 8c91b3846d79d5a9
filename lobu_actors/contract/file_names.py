"""Names and types of files as they may be shown, stored and put beneath a folder, whatever somebody called them.

A name here is one part of a path: it cannot leave the folder that it is put in, hide what it is, or break a header.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container

MAX_NAME_BYTES = 200
DEFAULT_NAME = "file"
DEFAULT_TYPE = "application/octet-stream"
_MAX_SUFFIX_BYTES = 32
_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}\Z")


def safe_name(given: str) -> str:
    """The last part of `given`'s path without control and formatting characters, in at most MAX_NAME_BYTES of UTF-8."""
    name = unicodedata.normalize("NFC", given).replace("\\", "/").rsplit("/", 1)[-1]
    # Categories C*: control, formatting (which can turn the order of what is read), surrogates, private use.
    name = "".join(" " if char.isspace() else char for char in name if not unicodedata.category(char).startswith("C"))
    name = name.strip(" .") if not name.startswith(".") else name.rstrip(" .")
    return _cut(name, MAX_NAME_BYTES) or DEFAULT_NAME


def unique_name(name: str, taken: Container[str]) -> str:
    """`name`, or with a number before its suffix; `taken` holds case-folded names."""
    if name.casefold() not in taken:
        return name
    stem, suffix = _split(name)
    number = 2
    while True:
        tail = f"-{number}{suffix}"
        candidate = _cut_text(stem, MAX_NAME_BYTES - len(tail.encode())) + tail
        if candidate.casefold() not in taken:
            return candidate
        number += 1


def safe_media_type(given: str | None) -> str:
    """`type/subtype` in lower case without parameters, or the type of anything."""
    kind = (given or "").split(";", 1)[0].strip().lower()
    return kind if _TYPE.match(kind) else DEFAULT_TYPE


def _cut(name: str, limit: int) -> str:
    if len(name.encode()) <= limit:
        return name
    stem, suffix = _split(name)
    return _cut_text(stem, limit - len(suffix.encode())) + suffix


def _split(name: str) -> tuple[str, str]:
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(suffix.encode()) > _MAX_SUFFIX_BYTES:
        return name, ""
    return stem, dot + suffix


def _cut_text(text: str, limit: int) -> str:
    return text.encode()[:limit].decode(errors="ignore")

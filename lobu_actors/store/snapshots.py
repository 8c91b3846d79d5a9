"""Puts a session file together from its stored segments and proves it. Pure; shared by both stores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from lobu_actors.store.errors import SnapshotCorrupt

# base_length, total_length, sha256 of the whole file, data
SegmentRow = tuple[int, int, str, bytes]


def join_segments(segments: Iterable[SegmentRow]) -> bytes | None:
    """The file that a whole segment and the suffixes behind it make; None when there is no segment.

    Raises SnapshotCorrupt when a piece is missing, does not fit, or the bytes do not match the last segment's hash.
    """
    content = bytearray()
    expected: str | None = None
    for base_length, total_length, sha256, data in segments:
        content += data
        if base_length + len(data) != len(content) or total_length != len(content):
            raise SnapshotCorrupt(
                f"a segment covers bytes {base_length} to {total_length}, but {len(content)} bytes are there"
            )
        expected = sha256
    if expected is None:
        return None
    whole = bytes(content)
    if hashlib.sha256(whole).hexdigest() != expected:
        raise SnapshotCorrupt(f"{len(whole)} bytes are there, and they do not match their hash")
    return whole

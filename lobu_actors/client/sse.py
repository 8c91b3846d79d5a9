"""Server-Sent Events from bytes, as the HTML standard reads them. Pure and bounded; knows no event names.

Own code rather than httpx-sse: that one has no bound on the length of a line, and reads through nested async
generators, which trio cannot clean up when a reader stops in the middle of a stream.
"""

from __future__ import annotations

import codecs

import msgspec

MAX_FRAME_CHARACTERS = 64 * 1024 * 1024


class FrameTooLarge(ValueError):
    """A frame grew beyond MAX_FRAME_CHARACTERS: not a server of ours."""


class SseFrame(msgspec.Struct, frozen=True):
    """One dispatched frame. `id` is None when the frame itself had none."""

    event: str
    data: str
    id: str | None


class SseDecoder:
    """Bytes in, frames out. Frames without data are not events and are left out; `retry_ms` keeps the last `retry:`."""

    def __init__(self) -> None:
        self.retry_ms: int | None = None
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._partial: list[str] = []  # the line that has not ended yet
        self._after_cr = False
        self._size = 0
        self._event = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, chunk: bytes) -> list[SseFrame]:
        """The frames that `chunk` completes. Raises FrameTooLarge."""
        text = self._utf8.decode(chunk)
        if self._after_cr and text:
            text = text.removeprefix("\n")
            self._after_cr = False
        if text.endswith("\r"):
            self._after_cr = True
        self._size += len(text)
        frames: list[SseFrame] = []
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in lines[:-1]:
            if self._partial:
                line = "".join([*self._partial, line])
                self._partial.clear()
            frame = self._line(line)
            if frame is not None:
                frames.append(frame)
        if lines[-1]:
            self._partial.append(lines[-1])
        if self._size > MAX_FRAME_CHARACTERS:
            raise FrameTooLarge(f"a frame of more than {MAX_FRAME_CHARACTERS} characters")
        return frames

    def _line(self, line: str) -> SseFrame | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit() and len(value) < 10:
            self.retry_ms = int(value)
        return None

    def _dispatch(self) -> SseFrame | None:
        frame = SseFrame(self._event or "message", "\n".join(self._data), self._id) if self._data else None
        self._event, self._data, self._id = "", [], None
        self._size = 0
        return frame

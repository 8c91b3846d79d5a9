"""A command on a pseudo terminal: what it writes, as the screens that it draws, and the keys that are pressed."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import trio

TOP = "\x1b[H"


@attrs.define
class Terminal:
    master: int
    process: subprocess.Popen[bytes]
    before: list[object]  # its settings when the command was started
    written: str = ""
    # What is read may end in the middle of a character.
    _decoder: codecs.IncrementalDecoder = attrs.field(factory=codecs.getincrementaldecoder("utf-8"))

    def resize(self, columns: int, lines: int) -> None:
        """The kernel tells the command."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, key: bytes) -> None:
        os.write(self.master, key)

    @property
    def screens(self) -> list[list[str]]:
        """What was drawn, each time from the top, without control sequences at the ends of lines."""
        drawn = self.written.split(TOP)[1:]
        return [one.split("\x1b[J")[0].replace("\x1b[K", "").split("\r\n") for one in drawn if "\x1b[J" in one]

    @property
    def settings(self) -> list[object]:
        return termios.tcgetattr(self.master)

    async def read(self) -> None:
        """What there is to read, at least something. OSError once all is read and the command has ended."""
        await trio.lowlevel.wait_readable(self.master)
        with suppress(BlockingIOError):
            self.written += self._decoder.decode(os.read(self.master, 65536))

    async def until(self, text: str, seconds: float = 30.0) -> list[str]:
        """The next screen that has `text` on it."""
        known = len(self.screens)
        with trio.fail_after(seconds):
            while True:
                for screen in self.screens[known:]:
                    if any(text in line for line in screen):
                        return screen
                await self.read()

    async def wait(self, seconds: float = 30.0) -> int:
        """Its exit code, with everything read that it has written."""
        with trio.fail_after(seconds):
            with suppress(OSError):
                while True:
                    await self.read()
            while self.process.poll() is None:  # noqa: ASYNC110 - it has closed its terminal, and ends
                await trio.sleep(0.01)
        return self.process.returncode


@contextmanager
def on_terminal(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], columns: int = 100, lines: int = 30
) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    before = termios.tcgetattr(master)
    process = subprocess.Popen(
        list(words),
        cwd=folder,
        env={**environment, "TERM": "xterm"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=partial(fcntl.ioctl, 0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)  # the command alone has it, so that its end is seen
    try:
        yield Terminal(master, process, before)
    finally:
        process.kill()
        process.wait()
        os.close(master)

"""A command on a pseudo terminal: what it writes, as the screens that it draws, and the keys that are pressed."""

from __future__ import annotations

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
    slave: int
    process: subprocess.Popen[bytes]
    written: str = ""

    def resize(self, columns: int, lines: int) -> None:
        """The kernel tells the command."""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, key: bytes) -> None:
        os.write(self.master, key)

    @property
    def screens(self) -> list[list[str]]:
        """What was drawn, each time from the top, without control sequences at the ends of lines."""
        drawn = self.written.split(TOP)[1:]
        return [one.split("\x1b[J")[0].replace("\x1b[K", "").split("\r\n") for one in drawn if "\x1b[J" in one]

    @property
    def settings(self) -> list[object]:
        return termios.tcgetattr(self.slave)

    async def read(self) -> None:
        """What there is to read, at least something."""
        await trio.lowlevel.wait_readable(self.master)
        with suppress(BlockingIOError):
            self.written += os.read(self.master, 65536).decode()

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
            while self.process.poll() is None:
                with trio.move_on_after(0.05):
                    await self.read()
            with suppress(OSError), trio.move_on_after(0.2):
                while True:
                    await self.read()
        return self.process.returncode


@contextmanager
def on_terminal(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], columns: int = 100, lines: int = 30
) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
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
    try:
        yield Terminal(master, slave, process)
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)

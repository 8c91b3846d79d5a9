"""A terminal that is drawn on again and again: in place, without flicker, and left as it was found.

Everything of one drawing goes out in one write, over what stood there; nothing is cleared before. Keys come without
being echoed. Must not know what is drawn.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import trio

ENTER = "\x1b[?1049h\x1b[?25l"  # the other screen, no cursor
LEAVE = "\x1b[?25h\x1b[?1049l"
TOP, REST_OF_LINE, REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
QUIT = (b"q", b"Q", b"\x03")


def is_screen() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Screen:
    """`changed` is set when the terminal has another size."""

    def __init__(self) -> None:
        self.changed = trio.Event()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        size = os.get_terminal_size(sys.stdout.fileno())
        return max(1, size.columns), max(1, size.lines)

    def draw(self, lines: Sequence[str]) -> None:
        """At most as many as the size has, none wider."""
        _write(TOP + "\n".join(line + REST_OF_LINE for line in lines) + REST_OF_SCREEN)

    async def watch(self, until: Callable[[], None], *, task_status: trio.TaskStatus[None]) -> None:
        """Tell of changes of the size; call `until` when a key or a signal says that it is over. Started: it hears."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keys, until)
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH) as signals:
                task_status.started()
                async for number in signals:
                    if number == signal.SIGWINCH:
                        self.changed.set()
                        self.changed = trio.Event()
                    else:
                        until()

    async def _keys(self, until: Callable[[], None]) -> None:
        while True:
            await trio.lowlevel.wait_readable(sys.stdin.fileno())
            key = os.read(sys.stdin.fileno(), 1)
            if not key or key in QUIT:
                until()
                return


@asynccontextmanager
async def screen() -> AsyncIterator[Screen]:
    with _keys_at_once():
        _write(ENTER)
        try:
            yield Screen()
        finally:
            _write(LEAVE)


@contextmanager
def _keys_at_once() -> Iterator[None]:
    """No echo, no waiting for Enter, and no Ctrl-Z, which would leave the shell on this screen."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    changed = termios.tcgetattr(descriptor)
    changed[3] &= ~(termios.ECHO | termios.ICANON)
    changed[6][termios.VSUSP] = b"\0"
    termios.tcsetattr(descriptor, termios.TCSADRAIN, changed)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()

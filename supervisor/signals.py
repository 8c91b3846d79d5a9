"""What signals mean to a process that serves: SIGINT and SIGTERM end it, SIGHUP has it read its configuration again.

The first of the two drains, a second one ends at once. SIGHUP has an older meaning, too: the terminal is gone. That is
the end of a program that was started in one, unless it was started to ignore it (nohup).
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
import trio

log = structlog.get_logger(__name__)

STANDARD = (0, 1, 2)

HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@asynccontextmanager
async def obeying(stopping: trio.Event, on_hang_up: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
    """The first signal sets `stopping`, a second one cancels the context.

    Signals are heard until all within has ended, and from then on ignored, as this is a process's last work: a third
    one must not kill it while it cleans up, or make a clean end look like a death by signal while the interpreter
    ends. A drain that somebody else asked for does not make the first signal a second one.
    """
    async with trio.open_nursery() as hearing:
        within = trio.CancelScope()
        await hearing.start(_hear, stopping, within, on_hang_up)
        with within:
            yield
        hearing.cancel_scope.cancel()


async def _hear(
    stopping: trio.Event,
    everything: trio.CancelScope,
    on_hang_up: Callable[[], None],
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    terminal = _Terminal()
    hurry = False
    # The receiver finds them ignored, and leaves them so: at its end it also raises once more what nobody took from it.
    # Blocked until it is there, so that one that comes in between waits and is not lost.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    for heard in HEARD:
        signal.signal(heard, signal.SIG_IGN)
    with trio.open_signal_receiver(*HEARD) as signals:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP and not terminal.lost():
                on_hang_up()
                continue
            log.info("stopping now" if hurry else "stopping", signal=signal.Signals(number).name)
            if hurry:
                everything.cancel()
            hurry = True
            stopping.set()


class _Terminal:
    """The one that this process was started in, if any. Made before SIGHUP is handled."""

    def __init__(self) -> None:
        self._counts = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()
        self._ours = [number for number in STANDARD if os.isatty(number)]

    def lost(self) -> bool:
        """Whether it was there and is not any more. What is printed goes nowhere then, and fails nobody."""
        if not self._counts or _has_terminal():
            return False
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in self._ours:
            os.dup2(nowhere, number)
        os.close(nowhere)
        return True


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True

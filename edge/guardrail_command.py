"""One guardrail program, run once: the message on its stdin, its verdict in its exit code. Knows nothing of messages.

It gets a process group and a small environment of its own, and is gone when this returns: whatever it started in its
group is killed with it, while its leader is not reaped yet, so that the group's number can be nobody else's. Its output
is read to the end and kept up to a bound, so that it can neither fill memory nor wait for a reader.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import trio

MAX_OUTPUT_BYTES = 16 * 1024
_READ_BYTES = 16 * 1024
_PIPES_SECONDS = 0.5  # for output of an ended program that somebody outside its group still holds open
_END_SECONDS = 5.0  # for the kernel to end what was killed
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")


class Ended(msgspec.Struct, frozen=True):
    """How a program ended by itself, with the beginnings of its outputs."""

    exit_code: int  # negative: the signal
    stdout: bytes
    stderr: bytes


class CommandBroken(Exception):
    """It could not be started, or did not end in time; the message says which."""


async def run_command(command: Sequence[str], given: bytes, timeout_seconds: float) -> Ended:
    """Raises CommandBroken. Takes at most `timeout_seconds`, and `_END_SECONDS` to clean up after it."""
    with trio.move_on_after(timeout_seconds):
        try:
            process = await trio.lowlevel.open_process(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=tempfile.gettempdir(),
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                process_group=0,
            )
        except (OSError, ValueError) as error:
            raise CommandBroken(f"it cannot be started: {error}") from error
        try:
            return await _converse(process, given)
        finally:
            await _end(process)
    raise CommandBroken(f"it did not end within {timeout_seconds:g} s")


async def _converse(process: trio.Process, given: bytes) -> Ended:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    stdout, stderr = bytearray(), bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_feed, process.stdin, given)
        nursery.start_soon(_take, process.stdout, stdout)
        nursery.start_soon(_take, process.stderr, stderr)
        await _exited(process)
        _kill_group(process)
        limit = trio.current_time() + _PIPES_SECONDS
        nursery.cancel_scope.deadline = min(nursery.cancel_scope.deadline, limit)
    return Ended(await process.wait(), bytes(stdout), bytes(stderr))


async def _exited(process: trio.Process) -> None:
    """Until it is over, but not reaped: its number and its group's stay its own."""
    descriptor = os.pidfd_open(process.pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


async def _feed(stdin: trio.abc.SendStream, given: bytes) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # it need not read
        async with stdin:
            await stdin.send_all(given)


async def _take(output: trio.abc.ReceiveStream, kept: bytearray) -> None:
    async with output:
        while data := await output.receive_some(_READ_BYTES):
            kept += data[: MAX_OUTPUT_BYTES - len(kept)]


async def _end(process: trio.Process) -> None:
    with trio.move_on_after(_END_SECONDS, shield=True):
        if process.returncode is None:
            _kill_group(process)
            await process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()


def _kill_group(process: trio.Process) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)

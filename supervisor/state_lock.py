"""The lock on a state directory. Who holds it knows that whoever held it before is gone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from supervisor.config.errors import ConfigError


@contextmanager
def state_lock(state_dir: Path) -> Iterator[None]:
    """Held until the context ends, or this process does, in whatever way. Raises ConfigError when somebody has it."""
    path = state_dir / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"the folder is not writable ({error.strerror}); choose another with --data-dir.", file=str(state_dir)
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise ConfigError(
                f"another `lobu run` (pid {holder}) uses this folder; stop it, or choose another with --data-dir.",
                file=str(state_dir),
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


async def until_unlocked(state_dir: Path) -> None:
    """Until no process has it; callers bound the wait."""
    try:
        descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        await trio.to_thread.run_sync(fcntl.flock, descriptor, fcntl.LOCK_EX, abandon_on_cancel=True)
    finally:
        os.close(descriptor)

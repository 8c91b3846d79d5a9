"""No child outlives a benchmark, whatever moment it is told to end in.

An interrupt that comes while a process is being started leaves one that nobody has a handle on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

GONE_SECONDS = 20.0


@contextmanager
def none_left() -> Iterator[None]:
    """At its end SIGKILL to the children that this process has got in it, and to theirs, and they are reaped."""
    this = psutil.Process()
    before = set(this.children())
    try:
        yield
    finally:
        found = set(this.children(recursive=True)) - before
        for one in before:
            with suppress(psutil.Error):
                found -= set(one.children(recursive=True))
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, GONE_SECONDS)

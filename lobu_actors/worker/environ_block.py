"""The memory that /proc/<pid>/environ shows: what a process was executed with, which a fork inherits unchanged.

Owns its place and form. It is written over with what a forked worker has really been given, because whoever looks for
what a worker left behind reads it there. The C library's environment points into it until each variable is removed,
which is done by comparing names there: so removal comes first, then the writing, then the new variables.
"""

import os
from typing import NamedTuple

FIRST = ("LOBU_WORKER_ID", "WORKSPACE_DIR")  # what must be in it, however small it is
_START_FIELD, _END_FIELD = 47, 48  # of /proc/self/stat, counted from the state


class Block(NamedTuple):
    start: int
    size: int


def find() -> Block:
    """Where it is in this process. Raises OSError."""
    with open("/proc/self/stat", "rb", buffering=0) as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[_START_FIELD]), int(fields[_END_FIELD])
    if not 0 < start < end:
        raise OSError("the kernel does not say where the environment is")
    return Block(start, end - start)


def replace(block: Block, environment: dict[str, str]) -> None:
    """Have this environment instead, and show as much of it as there is room for. Raises OSError."""
    for name in list(os.environ):
        del os.environ[name]
    _write(block, environment)
    os.environ.update(environment)


def _write(block: Block, environment: dict[str, str]) -> None:
    names = [name for name in FIRST if name in environment]
    names += [name for name in environment if name not in FIRST]
    data = bytearray()
    for name in names:
        entry = os.fsencode(f"{name}={environment[name]}") + b"\0"
        if len(data) + len(entry) <= block.size:
            data += entry
    memory = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(memory, data.ljust(block.size, b"\0"), block.start)
    finally:
        os.close(memory)

"""Worker types and the limits on workers: validated configuration, handed to the supervisor's parts when they start.

Owns their form and defaults. Reads neither files nor the environment.
"""

import os
import sys

import attrs
import msgspec

from lobu_actors.contract.frames import MAX_LINE_BYTES
from supervisor.sandbox.destinations import Destination

MIB = 1024 * 1024
INTERPRETER = "python"
SANDBOXES = ("none", "bwrap")


@attrs.frozen
class WorkerType:
    """A program that conversations can be given to.

    `command[0]` of `python` means the interpreter that runs this program. `zygote`: workers are forked from
    a process that has loaded the program, which must call the SDK's `serve`. `warm`: so many idle ones are kept ready.

    Limits are of each process, except `processes`, which counts those of one worker and needs a user of its own or a
    sandbox. `own_user` None means: if the host can. `network` is where a sandboxed worker may connect to, with
    `dispatcher` also this host's gateway; `readable` are further paths that it sees.

    `remote`: other machines have the program and its limits, and join; a cut link may come again within
    `reconnect_seconds`. Raises ValueError.
    """

    name: str
    command: tuple[str, ...]
    zygote: bool = False
    warm: int = 0
    sandbox: str = "none"
    memory_mb: int = 4096  # private memory; address space that is only reserved does not count
    cpu_seconds: int | None = None  # of its whole life; the deadlines bound a turn
    open_files: int = 4096
    processes: int = 512  # threads too
    file_size_mb: int = 4096
    own_user: bool | None = None
    readable: tuple[str, ...] = ()
    temporary_mb: int = 512  # of a sandbox's own /tmp, in memory
    network: tuple[Destination, ...] = ()
    dispatcher: bool = False
    remote: bool = False
    reconnect_seconds: float = 20.0

    def __attrs_post_init__(self) -> None:
        if self.remote:
            if self.command or self.reconnect_seconds < 0:
                raise ValueError(f"worker type {self.name!r} is remote: no command here, reconnect_seconds >= 0")
            return
        if not self.command or not all(isinstance(part, str) and "\0" not in part for part in self.command):
            raise ValueError(f"worker type {self.name!r} needs a command: at least one string, none with a NUL")
        if self.sandbox not in SANDBOXES:
            raise ValueError(f"worker type {self.name!r} has sandbox {self.sandbox!r}, not one of {SANDBOXES}")
        if self.zygote and self.sandbox != "none":
            raise ValueError(
                f"worker type {self.name!r} has zygote and a sandbox: a fork shares what the zygote could see; drop one"
            )
        if self.warm and self.sandbox != "none":
            raise ValueError(
                f"worker type {self.name!r} has warm and a sandbox: a sandbox is one conversation's; drop one"
            )
        bounds = (self.memory_mb, self.open_files, self.processes, self.file_size_mb, self.temporary_mb)
        if self.warm < 0 or min(*bounds, 1 if self.cpu_seconds is None else self.cpu_seconds) <= 0:
            raise ValueError(f"worker type {self.name!r} needs warm >= 0 and limits > 0")
        if self.sandbox == "none" and (self.network or self.dispatcher or self.readable):
            raise ValueError(
                f"worker type {self.name!r} has network or readable, which are a sandbox's, and no sandbox"
            )

    @property
    def argv(self) -> list[str]:
        """What is executed. `python -m` does not search its folder: a worker could plant modules in its workspace."""
        program, *arguments = self.command
        if program != INTERPRETER:
            return [program, *arguments]
        return [sys.executable, *(("-P",) if arguments[:1] == ["-m"] else ()), *arguments]

    @property
    def limits(self) -> dict[str, int]:
        """For `Spawn.limits`, without that of processes, which counts for a user and not for a worker."""
        # RLIMIT_DATA and not RLIMIT_AS: runtimes reserve many times the address space that they ever use.
        limits = {
            "RLIMIT_DATA": self.memory_mb * MIB,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_FSIZE": self.file_size_mb * MIB,
            "RLIMIT_CORE": 0,
        }
        return limits if self.cpu_seconds is None else {**limits, "RLIMIT_CPU": self.cpu_seconds}

    @property
    def programs(self) -> tuple[str, ...]:
        """The files of the command line that must be there for the worker to start."""
        return tuple(part for part in self.argv if os.path.isabs(part) and os.path.isfile(part))

    @property
    def has_network(self) -> bool:
        return bool(self.network) or self.dispatcher


class WorkerLimits(msgspec.Struct, frozen=True):
    """Bounds on workers. `max_workers` counts living ones; a start beyond it has one at rest end, and waits for its
    place, `place_seconds` at the most."""

    max_workers: int = 256
    place_seconds: float = 60.0
    send_buffer_bytes: int = 16 * 1024 * 1024
    max_line_bytes: int = MAX_LINE_BYTES
    exit_report_seconds: float = 0.25  # from a closed socket to the report of the exit, before the worker is killed
    killed_seconds: float = 1.0  # from SIGKILL to the report, before the signal alone must do
    unclaimed_seconds: float = 15.0  # for a worker of an earlier supervisor, until its conversation asks for it
    warm_unused_seconds: float = 900.0  # idle workers end when their type was not asked for so long
    warm_free_memory: float = 0.1  # share of the machine's memory; below it no idle workers are kept
    stop_grace_seconds: float = 2.0  # for all workers to end by themselves when the service stops

"""Worker types and the limits on workers: validated configuration, handed to the supervisor's parts when they start.

Owns their form and defaults. Reads neither files nor the environment.
"""

import sys

import attrs

from lobu_actors.contract.frames import MAX_LINE_BYTES

INTERPRETER = "python"
SANDBOXES = ("none", "bwrap")


@attrs.frozen
class WorkerType:
    """A program that conversations can be given to.

    `command[0]` of `python` means the interpreter that runs this program. `zygote`, `warm`, `sandbox` and `memory_mb`
    are kept here and not yet acted on. Raises ValueError.
    """

    name: str
    command: tuple[str, ...]
    zygote: bool = False
    warm: int = 0
    sandbox: str = "none"
    memory_mb: int | None = None

    def __attrs_post_init__(self) -> None:
        if not self.command or not all(isinstance(part, str) and "\0" not in part for part in self.command):
            raise ValueError(f"worker type {self.name!r} needs a command: at least one string, none with a NUL")
        if self.sandbox not in SANDBOXES:
            raise ValueError(f"worker type {self.name!r} has sandbox {self.sandbox!r}, not one of {SANDBOXES}")
        if self.warm < 0 or (self.memory_mb is not None and self.memory_mb <= 0):
            raise ValueError(f"worker type {self.name!r} needs warm >= 0 and memory_mb > 0")

    @property
    def argv(self) -> list[str]:
        """What is executed. `python -m` does not search its folder: a worker could plant modules in its workspace."""
        program, *arguments = self.command
        if program != INTERPRETER:
            return [program, *arguments]
        return [sys.executable, *(("-P",) if arguments[:1] == ["-m"] else ()), *arguments]


@attrs.frozen
class WorkerLimits:
    """Bounds on workers. `max_workers` counts living ones; a start beyond it waits within its startup time."""

    max_workers: int = 256
    send_buffer_bytes: int = 16 * 1024 * 1024
    max_line_bytes: int = MAX_LINE_BYTES
    exit_report_seconds: float = 0.25  # from a closed socket to the report of the exit, before the worker is killed
    killed_seconds: float = 1.0  # from SIGKILL to the report, before the signal alone must do
    stop_grace_seconds: float = 2.0  # for all workers to end by themselves when the service stops

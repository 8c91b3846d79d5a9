"""Starts one worker process: its socket, its log pipe, its session and environment, and nothing else of the spawner.

Owns how a program is executed and what is said when that fails. Must not know of requests, replies or reaping.

`subprocess.Popen` reports the errors of chdir and execve back, so that a program that does not exist is known at once.
Without limits it uses vfork; with them the child must run code of ours before its program, which takes a fork: 1.3 ms
more in a process as small and single-threaded as this one.
"""

import errno
import os
import signal
import socket
import subprocess
from functools import partial
from typing import NamedTuple

from supervisor.spawner import confine
from supervisor.spawner.protocol import MARK, WORKER_FD, Spawn

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_START_TIME_FIELD = 19  # of /proc/<pid>/stat, counted from the state, which follows the parenthesized name


class LaunchFailed(Exception):
    """The program was not executed; the text is one sentence for the operator."""


class Launched(NamedTuple):
    """A running worker. The three descriptors belong to the caller."""

    pid: int
    started_at: float  # seconds since boot
    socket: socket.socket  # the supervisor's end
    pidfd: int
    output: int  # the reading end of its stdout and stderr, non-blocking


class Launcher:
    """Launches programs one at a time. Takes over descriptor WORKER_FD of this process for good.

    Each worker's end of its socket is put there for the moment of the launch, because a child inherits a descriptor
    under the number that it has here.
    """

    def __init__(self) -> None:
        self._nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        if self._nothing == WORKER_FD:
            self._nothing = os.dup(WORKER_FD)
        self._free_worker_fd()

    def launch(self, request: Spawn) -> Launched:
        """Execute the program in a new session and process group. Raises LaunchFailed."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            output, output_end = os.pipe2(os.O_CLOEXEC)
        except OSError:
            ours.close()
            theirs.close()
            raise
        try:
            os.dup2(theirs.fileno(), WORKER_FD, inheritable=False)
            ours.setblocking(False)
            os.set_blocking(output, False)
            pid = self._execute(request, output_end)
            try:
                return Launched(pid, started_at(pid), ours, os.pidfd_open(pid), output)
            except OSError:
                os.killpg(pid, signal.SIGKILL)  # nobody would watch it
                raise
        except BaseException:
            ours.close()
            os.close(output)
            raise
        finally:
            # A copy of the worker's end that stayed here would hide the worker's EOF.
            self._free_worker_fd()
            theirs.close()
            os.close(output_end)

    def _free_worker_fd(self) -> None:
        os.dup2(self._nothing, WORKER_FD, inheritable=False)

    def _execute(self, request: Spawn, output_end: int) -> int:
        environment = dict(request.env)
        environment["LOBU_WORKER_FD"] = str(WORKER_FD)
        environment[MARK] = request.worker_id
        try:
            confinement = confine.checked(request.limits, request.user)
            process = subprocess.Popen(
                request.argv,
                env=environment,
                cwd=request.cwd,
                stdin=self._nothing,
                stdout=output_end,
                stderr=output_end,
                pass_fds=(WORKER_FD,),
                start_new_session=True,
                preexec_fn=partial(confine.apply, confinement) if any(confinement) else None,
            )
        except confine.ConfineError as error:
            raise LaunchFailed(str(error)) from error
        except (OSError, ValueError, TypeError, IndexError, subprocess.SubprocessError) as error:
            raise LaunchFailed(explain(error, request)) from error
        # The loop reaps this child: a status here keeps the object from waiting for a pid that may be another's.
        process.returncode = 0
        return process.pid


def started_at(pid: int) -> float:
    """When a process of ours started, in seconds since boot; with its pid the identity of the process."""
    with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
        after_name = file.read().rpartition(b")")[2].split()
    return int(after_name[_START_TIME_FIELD]) / _TICKS_PER_SECOND


def explain(error: Exception, request: Spawn) -> str:
    """One sentence that says why the program was not executed and what to look at."""
    program = request.argv[0] if request.argv else ""
    if not program:
        return "The worker type has an empty command line."
    if isinstance(error, subprocess.SubprocessError) and any((request.limits, request.user)):
        return "The worker's limits or its user could not be set; the spawner lacks the rights to."
    if not isinstance(error, OSError):
        return f"The program {program!r} could not be started: {error}."
    if error.filename == request.cwd and error.filename != program:
        return f"The working folder {request.cwd!r} cannot be entered: {error.strerror}."
    if error.errno == errno.ENOENT:
        if "/" in program and os.path.exists(os.path.join(request.cwd, program)):
            return f"The program {program!r} names an interpreter in its first line that was not found."
        return f"The program {program!r} was not found."
    if error.errno == errno.EACCES:
        if request.user is not None:
            return f"The program {program!r} is not executable for uid {request.user[0]}, or not reachable for it."
        return f"The program {program!r} is not executable."
    if error.errno == errno.ENOEXEC:
        return f"The program {program!r} is neither a binary of this machine nor a script with a first line `#!`."
    return f"The program {program!r} could not be started: {error.strerror}."

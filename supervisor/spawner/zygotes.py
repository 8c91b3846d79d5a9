"""All zygotes of a spawner: one for each worker program and environment, started early, replaced, given up.

Owns when there is a zygote and when a worker is executed instead, which is whenever a fork is not to be had at once: no
zygote yet, one that is unfit, hung, dying, or older than the code on disk. Never blocks. Must not know of the link.

An unfit program is tried again a minute later, and said again only if the reason is another: what makes it fit may be
a change of anything, and a start that nobody waits for costs little.
"""

import contextlib
import os
import selectors
import sys
import time
from collections.abc import Callable
from subprocess import SubprocessError

from supervisor.spawner import confine
from supervisor.spawner.launch import Launched, explain
from supervisor.spawner.protocol import OWN_VARIABLES, Preload, Spawn
from supervisor.spawner.records import Record, Records
from supervisor.spawner.zygote_process import Message, Ticket, ZygoteProcess, launched

PARK_SECONDS = 60.0  # from its start to the call of `serve`
FORK_SECONDS = 2.0  # without an answer, while one is owed
UNFIT_SECONDS = 60.0
RESTART_SECONDS = 1.0  # between two starts of one program
UNUSED_SECONDS = 600.0  # for one that no supervisor asked to keep ready
MAX_PROGRAMS = 8

Key = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]


class _Program:
    """A command line with an environment, and its zygote if there is one."""

    def __init__(self, key: Key) -> None:
        self.argv, self.env = list(key[0]), dict(key[1])
        self.zygote: ZygoteProcess | None = None
        self.kept = False
        self.used_at = time.monotonic()
        self.start_after = 0.0
        self.told = ""


class Zygotes:
    """`fork_done` is called for each request that `spawn` took, with None when it is to be executed instead."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        records: Records,
        *,
        fork_done: Callable[[Spawn, Launched | None], None],
        notice: Callable[[str], None],
        output: Callable[[str, str, int], None],
    ) -> None:
        self._selector = selector
        self._records = records
        self._fork_done = fork_done
        self._notice = notice
        self._output = output
        self._programs: dict[Key, _Program] = {}
        self._processes: dict[int, tuple[ZygoteProcess, _Program]] = {}

    # --- what the loop asks

    def preload(self, request: Preload) -> None:
        """Have a zygote ready, until `forget_preloads`."""
        program = self._program(request.argv, request.env)
        program.kept = True
        program.start_after = 0.0
        self._start(program)

    def forget_preloads(self) -> None:
        """A new supervisor came: it says itself what it wants to be kept ready."""
        for program in self._programs.values():
            program.kept = False
            program.used_at = time.monotonic()

    def spawn(self, request: Spawn) -> bool:
        """True when a worker is being forked, and `fork_done` will be called; False when it is to be executed."""
        program = self._program(request.argv, request.env)
        program.used_at = time.monotonic()
        zygote = program.zygote
        if zygote is None or not zygote.parked:
            self._start(program)
            return False
        try:
            return zygote.order(request, confine.checked(request.limits, request.user))
        except confine.ConfineError:
            return False  # the execution finds out the same, and says it

    @property
    def leaders(self) -> dict[int, str]:
        """The zygotes' pids, until they are reaped, and their names."""
        return {pid: zygote.name for pid, (zygote, _program) in self._processes.items()}

    @property
    def ordered(self) -> set[str]:
        """The ids of workers that are being forked."""
        return {worker_id for zygote, _program in self._processes.values() for worker_id in zygote.ordered}

    def drain(self) -> None:
        """Take all that was said. A forked worker has said its pid before it can have ended."""
        for zygote, program in list(self._processes.values()):
            self._receive(zygote, program)

    def ended(self, pid: int, code: int, status: int) -> None:
        """A zygote ended and is not reaped yet. `code` and `status` are waitid's."""
        zygote, program = self._processes[pid]
        self._receive(zygote, program)
        zygote.kill()  # its group, while its zombie still holds the number
        del self._processes[pid]
        self._output(zygote.name, *zygote.close())
        self._records.remove(zygote.name)
        if program.zygote is zygote:
            how = f"exit code {status}" if code == os.CLD_EXITED else f"signal {status}"
            program.zygote = None
            if zygote.parked:
                self._start(program)
            else:
                last = f": {zygote.last_line}" if zygote.last_line else ""
                self._unfit(program, f"it ended with {how} before it came to `serve`{last}")
        self._execute_ordered(zygote)

    def replace_all(self) -> None:
        """New zygotes for all workers to come, of what is on disk now; for those that were unfit too."""
        for program in list(self._programs.values()):
            program.start_after, program.told = 0.0, ""
            self._dismiss(program)
            self._start(program)

    def patience(self) -> float | None:
        """Seconds until `expire` has something to do; None when nothing is due ever."""
        due = min(map(self._due, self._programs.values()), default=float("inf"))
        return None if due == float("inf") else max(0.0, due - time.monotonic())

    def expire(self) -> None:
        """End what took too long and what nobody uses."""
        for key, program in list(self._programs.items()):
            if self._due(program) > time.monotonic():
                continue
            zygote = program.zygote
            if zygote is None or (zygote.parked and not zygote.ordered):
                self._dismiss(program)
                del self._programs[key]
                continue
            self._receive(zygote, program)  # it may have been us who did not look
            if program.zygote is not zygote or self._due(program) > time.monotonic():
                continue
            was_parked = zygote.parked
            self._dismiss(program)
            if was_parked:
                self._notice(f"The zygote of {_told(program)} did not answer for {FORK_SECONDS:g} s and was replaced.")
                self._start(program)
            else:
                self._unfit(program, f"it did not come to `serve` within {PARK_SECONDS:g} s")

    def end(self) -> None:
        """The spawner ends: nothing more is started or executed."""
        for program in self._programs.values():
            program.zygote = None
        self._programs.clear()
        for zygote, _program in self._processes.values():
            zygote.give_up()
            zygote.close_link()
            zygote.kill()

    # --- programs

    def _program(self, argv: list[str], env: dict[str, str]) -> _Program:
        key = tuple(argv), tuple(sorted((name, value) for name, value in env.items() if name not in OWN_VARIABLES))
        if key not in self._programs:
            if len(self._programs) >= MAX_PROGRAMS:
                self._drop_one()
            self._programs[key] = _Program(key)
        return self._programs[key]

    def _drop_one(self) -> None:
        key = min(self._programs, key=lambda key: (self._programs[key].kept, self._programs[key].used_at))
        self._dismiss(self._programs.pop(key))

    def _due(self, program: _Program) -> float:
        zygote = program.zygote
        if zygote is not None and not zygote.parked:
            return zygote.asked_at + PARK_SECONDS
        if zygote is not None and zygote.ordered:
            return zygote.asked_at + FORK_SECONDS
        return float("inf") if program.kept else program.used_at + UNUSED_SECONDS

    def _start(self, program: _Program) -> None:
        now = time.monotonic()
        if program.zygote is not None or now < program.start_after:
            return
        program.start_after = now + RESTART_SECONDS
        try:
            zygote = ZygoteProcess(program.argv, program.env)
        except (OSError, ValueError, IndexError, SubprocessError) as error:
            self._unfit(program, explain(error, Spawn("", program.argv, program.env, "/")))
            return
        program.zygote = zygote
        self._processes[zygote.pid] = zygote, program
        zygote.watch(self._selector, lambda: self._receive(zygote, program), lambda: self._forward(zygote))
        try:
            self._records.add(Record(zygote.name, zygote.pid, zygote.started_at))
        except OSError as error:
            print(f"spawner: {zygote.name} is not on record: {error}", file=sys.stderr)

    def _dismiss(self, program: _Program) -> None:
        """End its zygote, whatever that does; answers that came already count."""
        zygote = program.zygote
        if zygote is None:
            return
        self._receive(zygote, program)
        program.zygote = None
        zygote.close_link()
        zygote.kill()
        self._execute_ordered(zygote)

    def _unfit(self, program: _Program, reason: str) -> None:
        program.start_after = time.monotonic() + UNFIT_SECONDS
        if program.told != reason:
            program.told = reason
            self._notice(f"Workers of {_told(program)} are executed, not forked: {reason.removesuffix('.')}.")

    # --- what a zygote says

    def _receive(self, zygote: ZygoteProcess, program: _Program) -> None:
        for message in zygote.messages():
            kind = message.get("type")
            if kind in ("forked", "failed"):
                if (ticket := zygote.take(message.get("worker_id"))) is not None:
                    self._answered(ticket, message)
                for request in zygote.order_waiting():
                    self._fork_done(request, None)
            elif kind == "parked":
                zygote.parked = True
                program.told = ""
            else:
                self._leaves(zygote, program, message)

    def _answered(self, ticket: Ticket, message: Message) -> None:
        if message["type"] == "forked":
            with contextlib.suppress(OSError, TypeError, ValueError, KeyError):
                self._fork_done(ticket.request, launched(ticket, message["pid"]))
                return
        ticket.close()
        self._fork_done(ticket.request, None)

    def _leaves(self, zygote: ZygoteProcess, program: _Program, message: Message) -> None:
        """It ends by itself: for a reason that it says, or for one that its exit status will tell."""
        zygote.close_link()
        if program.zygote is zygote and message.get("type") in ("unfit", "stale"):
            program.zygote = None
            if message["type"] == "unfit":
                self._unfit(program, str(message.get("reason")))
            else:
                self._start(program)
        else:
            zygote.kill()  # one that lives on without its socket is of no use
        self._execute_ordered(zygote)

    def _execute_ordered(self, zygote: ZygoteProcess) -> None:
        for request in zygote.give_up():
            self._fork_done(request, None)

    def _forward(self, zygote: ZygoteProcess) -> None:
        if zygote.pid in self._processes:  # not ended by an event before this one of the same select
            self._output(zygote.name, *zygote.read_output())


def _told(program: _Program) -> str:
    return f"`{' '.join(program.argv)}`"

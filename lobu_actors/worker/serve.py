"""A worker's life: handshake, a thread that reads and gives heartbeats, turns one after another, the end.

Owns the threads and what becomes of each frame. The main thread runs the handler; the daemon thread `_listen` reads,
so that a handler that computes for minutes can still be told to stop, and ends the process when the supervisor's end
of the socket is closed: nobody would see what it does from then on. So it does when the handler has left the program
and something else keeps it: there would be signs of life, and no turn.
"""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from lobu_actors.worker.channel import PROTOCOL_VERSION, Channel, Disconnected, Wire
from lobu_actors.worker.session import SessionFile
from lobu_actors.worker.turn import CRASH_STATUS, Run

HEARTBEAT_SECONDS = 5.0
IDLE_SECONDS = 0.3  # without a `hello`: it was started before anybody asked
_CO_GENERATOR, _CO_COROUTINE, _CO_ASYNC_GENERATOR = 0x20, 0x80, 0x200
_LOADED_ANEW = "__mp_main__"  # the program, where multiprocessing loads it; elsewhere another name of `__main__`

Handler = Callable[[Any], Any]


def serve(
    handler: Handler, *, name: str = "", version: str = "", steer: bool = False, writes_session: bool = False
) -> None:
    """Run this process as a worker until the supervisor ends it.

    `steer`: the handler takes what the user adds while a turn runs. `writes_session`: the handler, or a program that it
    drives, writes the session file; here it is left alone.

    `handler` takes a turn. An asynchronous generator or coroutine function gets a `Turn`; a generator or plain function
    a `BlockingTurn`. What it yields is the reply, piece by piece; a returned string is the reply, or its last piece.
    Raises SystemExit(2) when it was not started by a supervisor. Returns at once in a process of multiprocessing, which
    loads the program that it belongs to.
    """
    if getattr(sys.modules.get(_LOADED_ANEW), "__name__", None) == _LOADED_ANEW:
        return
    is_asynchronous = bool(_flags(handler) & (_CO_COROUTINE | _CO_ASYNC_GENERATOR))
    if "LOBU_ZYGOTE_FD" in os.environ:
        # Everything that is loaded here is shared by all workers that are forked.
        from lobu_actors.worker.zygote import park

        _driver(is_asynchronous)
        park()  # returns in each worker
    number = os.environ.get("LOBU_WORKER_FD", "")
    if not number.isdecimal():
        print("This is a worker: a supervisor starts it, with a socket in LOBU_WORKER_FD.", file=sys.stderr)
        raise SystemExit(2)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)  # stdout is a log
    capabilities = ["cancel", "ask", "reattach", "text-offset"] + (["steer"] if steer else [])
    ready = {
        "type": "ready",
        "protocol": PROTOCOL_VERSION,
        "name": name or getattr(handler, "__module__", ""),
        "version": version,
        "capabilities": capabilities,
    }
    try:
        channel = Channel(int(number))
        os.register_at_fork(after_in_child=channel.forget)
        worker = Worker(channel, ready, writes_session)
        # Loaded after `ready`, while the supervisor prepares the turn.
        _driver(is_asynchronous)(worker, handler)
    except Disconnected:
        _leave()


class Worker:
    """The state that the two threads share: the hello, the run that goes on, and the turns to come."""

    def __init__(self, channel: Channel, ready: Wire, writes_session: bool = False) -> None:
        self.channel = channel
        self.turns: queue.SimpleQueue[Run | None] = queue.SimpleQueue()  # None: leave
        self._run: Run | None = None
        self._left: int | None = None
        early = self._await_hello()
        self._session = None if writes_session else SessionFile(self.hello["sessionFile"], self.hello["workspace"])
        channel.send(ready)
        threading.Thread(target=self._listen, args=(early,), name="lobu-worker-listen", daemon=True).start()

    def leaves(self, error: BaseException) -> None:
        """The handler ends this program by `error`. Threads that the interpreter waits for have a heartbeat's time."""
        code = error.code if isinstance(error, SystemExit) else CRASH_STATUS
        self._left = (code or 0) if isinstance(code, int | None) else 1

    def _await_hello(self) -> list[Wire]:
        """The frames behind the first one. A worker that was started before anybody asked may wait for long."""
        frames = self.channel.receive(IDLE_SECONDS)
        if not frames:
            frames = self._idle()
        self.hello = frames[0]
        # Where an idle worker was started, it had no workspace yet.
        os.chdir(self.hello["workspace"])
        return frames[1:]

    def _idle(self) -> list[Wire]:
        from lobu_actors.worker.sources import Sources

        sources = Sources()
        is_old = sources.changed_while_loading() is not None
        while not (frames := self.channel.receive(HEARTBEAT_SECONDS)):
            pass
        if is_old or sources.changed() is not None:
            raise Disconnected  # the code is another by now: whoever asked gets another worker
        return frames

    def _listen(self, early: list[Wire]) -> None:
        interval = _heartbeat_interval(self.hello)
        due = time.monotonic() + interval
        frames = early
        try:
            while True:
                for frame in frames:
                    self._take(frame)
                if time.monotonic() >= due:
                    if self._left is not None:
                        os._exit(self._left)
                    self.channel.send_if_free({"type": "heartbeat"})
                    due = time.monotonic() + interval
                frames = self.channel.receive(due - time.monotonic())
        except Disconnected:
            _leave()
        except BaseException:
            # Without this thread the worker could be neither cancelled nor ended: better to be seen crashing.
            sys.excepthook(*sys.exc_info())
            os._exit(70)

    def _take(self, frame: Wire) -> None:
        kind, run = frame.get("type"), self._run
        if kind == "shutdown":
            self.turns.put(None)
        elif run is None or frame.get("runId") != run.run_id:
            self._take_of_another(kind, frame)
        elif kind == "cancel":
            run.cancel(frame.get("reason", ""))
        elif kind == "answer":
            run.answer(frame["questionId"], frame["answer"])
        elif kind == "steer":
            run.steer(frame["messageId"], frame["content"])
        elif kind == "reattach":
            run.send_again(frame["textOffset"])
        # A turn that is here already: one supervisor could not know that another had sent it.

    def _take_of_another(self, kind: object, frame: Wire) -> None:
        if kind == "turn":
            self._run = Run(self.channel, frame, self.hello, self._session)
            self.turns.put(self._run)
        elif kind == "reattach":
            # The supervisor before this one died before it could send the turn.
            self.channel.send({"type": "fail", "runId": frame.get("runId"), "code": "RUN_UNKNOWN"})


def _driver(is_asynchronous: bool) -> "Callable[[Worker, Handler], None]":
    if is_asynchronous:
        from lobu_actors.worker.asynchronous import run_turns
    else:
        from lobu_actors.worker.blocking import run_turns
    return run_turns


def _heartbeat_interval(hello: Wire) -> float:
    limit = hello.get("deadlines", {}).get("heartbeat_seconds")
    return min(HEARTBEAT_SECONDS, limit / 3) if isinstance(limit, int | float) and limit > 0 else HEARTBEAT_SECONDS


def _flags(handler: Any) -> int:
    """The code flags of a function behind partials, methods and callable objects; `inspect` costs 3 ms to load."""
    while hasattr(handler, "func"):
        handler = handler.func
    if not hasattr(handler, "__code__") and not hasattr(handler, "__func__"):
        handler = type(handler).__call__
    handler = getattr(handler, "__func__", handler)
    code = getattr(handler, "__code__", None)
    return code.co_flags if code is not None else 0


def _leave() -> None:
    os._exit(0)

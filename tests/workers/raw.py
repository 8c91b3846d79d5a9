"""Workers on the bare protocol that do what no SDK would let them: `raw.py HABIT`.

Standard library only, since a worker's environment has nothing of this project.
"""

import json
import os
import select
import socket
import sys
import time


class Wire:
    def __init__(self) -> None:
        self.socket = socket.socket(fileno=int(os.environ["LOBU_WORKER_FD"]))
        self.lines = self.socket.makefile("rb")

    def send(self, *frames: dict[str, object]) -> None:
        """All in one write."""
        self.socket.sendall(b"".join(json.dumps(frame).encode() + b"\n" for frame in frames))

    def next(self, kind: str) -> dict[str, object]:
        for line in self.lines:
            frame = json.loads(line)
            if frame["type"] == kind:
                return frame
        os._exit(0)


def ready(wire: Wire, *capabilities: str) -> None:
    wire.next("hello")
    wire.send({"type": "ready", "protocol": 1, "name": "raw", "version": "1", "capabilities": list(capabilities)})


def delta(run: object, text: str) -> dict[str, object]:
    return {"type": "delta", "runId": run, "text": text}


def complete(run: object, text: str | None = None) -> dict[str, object]:
    return {"type": "complete", "runId": run, **({} if text is None else {"text": text})}


def several_terminals(wire: Wire) -> None:
    """Each turn is ended five times, in two ways, with text in between."""
    ready(wire)
    while True:
        run = wire.next("turn")["runId"]
        fail = {"type": "fail", "runId": run, "code": "TOO_LATE", "message": "no"}
        wire.send(delta(run, "once"), complete(run), fail, delta(run, " more"), complete(run, "other"), fail)
        wire.send(complete(run))


def old_runs(wire: Wire) -> None:
    """Before each turn's reply come frames for the run before, and for one that never was."""
    ready(wire)
    before: object = "no-such-run"
    while True:
        run = wire.next("turn")["runId"]
        wire.send(delta(before, "STALE"), complete(before, "STALE"), {"type": "fail", "runId": before, "code": "OLD"})
        wire.send(delta("never-was", "STALE"), delta(run, "fresh"), complete(run))
        before = run


def asks(wire: Wire) -> None:
    """Speaks, asks, and goes on with the answer."""
    ready(wire, "ask")
    while True:
        run = wire.next("turn")["runId"]
        question = os.urandom(8).hex()
        wire.send(delta(run, "before "), {"type": "ask", "runId": run, "questionId": question, "prompt": "Well?"})
        wire.send(delta(run, "while it waits "))
        answer = wire.next("answer")["answer"]
        wire.send(delta(run, f"after {answer}"), complete(run))


def own_fields(wire: Wire) -> None:
    """Sends more with each frame than the protocol has, some of it under names that are the runtime's. Asks, then
    completes or fails as the answer says."""
    ready(wire, "ask")
    more = {"detail": {"page": 7}, "messageId": "forged", "timestamp": 1, "files": [{"url": "forged"}]}
    while True:
        run = wire.next("turn")["runId"]
        wire.send({"type": "status", "runId": run, "status": "reads", **more})
        wire.send({"type": "ephemeral", "runId": run, "text": "aside", **more})
        wire.send({"type": "ask", "runId": run, "questionId": "q", "prompt": "Well?", **more})
        if wire.next("answer")["answer"] == "fail":
            wire.send({"type": "fail", "runId": run, "code": "NO", "message": "no", **more})
        else:
            wire.send(complete(run, "done") | more)


def speaks_until_answered(wire: Wire) -> None:
    """Asks, and says a word a millisecond until the answer comes."""
    ready(wire, "ask")
    while True:
        run = wire.next("turn")["runId"]
        wire.send({"type": "ask", "runId": run, "questionId": os.urandom(8).hex(), "prompt": "Enough?"})
        number = 0
        while not select.select([wire.socket], [], [], 0.001)[0]:
            wire.send(delta(run, f"word{number} "))
            number += 1
        wire.next("answer")
        wire.send(complete(run))


def never_ready(wire: Wire) -> None:
    wire.next("hello")
    time.sleep(1000)


def exits_at_once(wire: Wire) -> None:
    os._exit(7)


def exits_when_ready(wire: Wire) -> None:
    ready(wire)
    os._exit(0)


def exits_after_hello(wire: Wire) -> None:
    wire.next("hello")
    os._exit(0)


def closes_at_start(wire: Wire) -> None:
    wire.next("hello")
    wire.socket.shutdown(socket.SHUT_RDWR)
    time.sleep(1000)


def garbage_at_start(wire: Wire) -> None:
    wire.socket.sendall(b"\x00\xff not a frame\n")
    time.sleep(1000)


def speaks_too_early(wire: Wire) -> None:
    wire.send(complete("some-run", "unasked"))
    time.sleep(1000)


def other_protocol(wire: Wire) -> None:
    wire.send({"type": "ready", "protocol": 99, "name": "raw", "version": "1", "capabilities": []})
    time.sleep(1000)


if __name__ == "__main__":
    globals()[sys.argv[1]](Wire())

"""A worker that says anything: `fuzzing.py SEED`. What it sends in a turn depends on the seed and the message alone.

Standard library only, since a worker's environment has nothing of this project. It comes up as it should, so that each
turn reaches it; after what it said in a turn, it ends it, dies, closes its socket, or does nothing more.
"""

import json
import os
import random
import socket
import sys
import time

KINDS = (
    "ready", "heartbeat", "delta", "status", "ask", "ephemeral", "complete", "fail", "log", "hello", "turn", "unheard",
)  # fmt: skip
FIELDS = (
    "runId", "text", "status", "phase", "tool", "questionId", "prompt", "options", "code", "message", "usage",
    "retryable", "context", "level", "fields", "protocol", "name", "version", "capabilities",
)  # fmt: skip
TEXTS = ("", "x", "ä\u2028\U0001f600", "a\x00b", "\ud800", "MY_CODE", "model", "tool", "waiting", "y" * 70_000)


class Source:
    def __init__(self, seed: str, run: str) -> None:
        self.random = random.Random(seed)
        self.run = run

    def value(self, depth: int = 0) -> object:
        kind = self.random.randrange(9 if depth < 3 else 6)
        if kind == 0:
            return self.random.choice((None, True, False))
        if kind == 1:
            return self.random.choice((0, -1, 1, 2**63, 2**200, 1.5, float("nan"), float("inf"), 1e308))
        if kind < 5:
            return self.random.choice(TEXTS)
        if kind == 5:
            return self.run
        if kind == 6:
            return [self.value(depth + 1) for _ in range(self.random.randrange(4))]
        return {self.random.choice((*FIELDS, "é", "")): self.value(depth + 1) for _ in range(self.random.randrange(4))}

    def frame(self) -> bytes:
        """Mostly of the right names, now and then of the right types, for this run or another."""
        found: dict[str, object] = {"type": self.random.choice(KINDS)}
        if self.random.random() < 0.9:
            found["runId"] = self.run
        for _ in range(self.random.randrange(6)):
            found[self.random.choice(FIELDS)] = self.value()
        return json.dumps(found, ensure_ascii=self.random.random() < 0.9).encode("utf-8", "surrogatepass") + b"\n"

    def good(self) -> bytes:
        frame = self.random.choice(
            (
                {"type": "heartbeat"},
                {"type": "delta", "runId": self.run, "text": "some "},
                {"type": "status", "runId": self.run, "status": "s", "phase": "model"},
                {"type": "delta", "runId": "another", "text": "STALE"},
                {"type": "log", "level": "info", "message": "m", "fields": {}},
                {"type": "unheard", "of": [1]},
            )
        )
        return json.dumps(frame).encode() + b"\n"

    def spoilt(self) -> bytes:
        data = bytearray(self.frame())
        for _ in range(1 + self.random.randrange(3)):
            data[self.random.randrange(len(data))] = self.random.randrange(256)
        return bytes(data)

    def piece(self) -> bytes:
        kind = self.random.randrange(20)
        if kind < 12:
            return self.good()
        if kind < 16:
            return self.frame()
        if kind == 16:
            return self.spoilt()
        if kind == 17:
            return self.random.randbytes(self.random.randrange(300))
        if kind == 18:
            return b"[" * 100_000 + b"\n"
        return self.random.choice(
            (b"\n", b"\r\n", b"null\n", b"[]\n", b"{}\n", b'"x"\n', b"\xff\xfe\n", b" " * 5000 + b"\n")
        )


def turn(wire: socket.socket, seed: str, run: str) -> None:
    source = Source(seed, run)
    data = b"".join(source.piece() for _ in range(source.random.randrange(12)))
    while data:
        cut = 1 + source.random.randrange(len(data))
        wire.sendall(data[:cut])
        data = data[cut:]
    end = source.random.randrange(8)
    if end == 0:
        os._exit(source.random.choice((0, 1, 124)))
    if end == 1:
        wire.shutdown(socket.SHUT_WR)
        time.sleep(1000)
    if end == 2:
        time.sleep(1000)  # no heartbeat either
    wire.sendall(json.dumps({"type": "complete", "runId": run, "text": None}).encode() + b"\n")


def main() -> None:
    wire = socket.socket(fileno=int(os.environ["LOBU_WORKER_FD"]))
    for line in wire.makefile("rb"):
        frame = json.loads(line)
        if frame["type"] == "hello":
            ready = {
                "type": "ready",
                "protocol": 1,
                "name": "fuzzing",
                "version": "1",
                "capabilities": ["ask", "cancel"],
            }
            wire.sendall(json.dumps(ready).encode() + b"\n")
        elif frame["type"] == "turn":
            seed = "/".join([sys.argv[1], str(frame["attempt"]), *(one["content"] for one in frame["messages"])])
            turn(wire, seed, frame["runId"])


if __name__ == "__main__":
    main()

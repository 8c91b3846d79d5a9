"""The least client that can be: blocking sockets, one request at a time, so that what is measured is the server."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

RECEIVE_BYTES = 65536
EVENT_SECONDS = 90.0
TERMINALS = ("complete", "agent-error", "cancelled")


class Connection:
    """One keep-alive connection for JSON requests."""

    def __init__(self, port: int, token: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.token = token

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        payload = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {self.token}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + payload)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        head_bytes, _, rest = received.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head_bytes.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        while len(rest) < length:
            rest += self._more()
        answer: dict[str, Any] = json.loads(rest)
        if not answer.get("success"):
            raise RuntimeError(f"{path} was refused: {answer}")
        return answer

    def close(self) -> None:
        self._socket.close()

    def _more(self) -> bytes:
        data = self._socket.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data


class Stream:
    """One event stream; gives (event, data, time of arrival)."""

    def __init__(
        self, port: int, token: str, path: str, last_id: str | None = None, timeout_seconds: float = 60.0
    ) -> None:
        self.last_id = last_id
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_seconds)
        resume = "" if last_id is None else f"last-event-id: {last_id}\r\n"
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n{resume}\r\n".encode()
        )
        self._buffer = b""

    def events(self) -> Iterator[tuple[str, dict[str, Any], float]]:
        while True:
            data = self._socket.recv(RECEIVE_BYTES)
            arrived = time.perf_counter()
            if not data:
                return
            self._buffer += data
            *frames, self._buffer = self._buffer.split(b"\n\n")
            for frame in frames:
                if frame.lstrip(b"0123456789abcdefABCDEF\r\n").startswith(b":"):
                    yield "ping", {}, arrived
                    continue
                fields = dict(line.split(": ", 1) for line in frame.decode().splitlines() if ": " in line)
                if "data" in fields:
                    self.last_id = fields.get("id", self.last_id)
                    yield fields.get("event", "message"), json.loads(fields["data"]), arrived

    def close(self) -> None:
        self._socket.close()


class Conversation:
    """Opened, with one stream attached from its beginning."""

    def __init__(self, port: int, key: str, thread: str, agent: str | None = None) -> None:
        opener = Connection(port, key)
        wanted = {"thread": thread} if agent is None else {"thread": thread, "agentId": agent}
        opened = opener.post("/api/v1/agents", wanted)
        opener.close()
        self.path = f"/api/v1/agents/{opened['agentId']}"
        self.token: str = opened["token"]
        self.requests = Connection(port, self.token)
        self._stream = Stream(port, self.token, f"{self.path}/events")
        self.events = self._stream.events()
        next(self.events)  # connected

    def read_at(self, port: int, timeout_seconds: float = 60.0) -> None:
        """Go on with the stream from its last id, there. Raises OSError when nobody listens; its events raise
        TimeoutError when nothing comes in `timeout_seconds`."""
        last_id = self._stream.last_id
        self._stream.close()
        self._stream = Stream(port, self.token, f"{self.path}/events", last_id, timeout_seconds)
        self.events = self._stream.events()

    def send(self, content: str) -> str:
        return str(self.requests.post(f"{self.path}/messages", {"content": content})["messageId"])

    def next_of(self, *names: str) -> tuple[str, dict[str, Any], float]:
        """The next event with one of these names. Raises ConnectionError when the stream ends before, RuntimeError when
        it goes on for long without one, or the turn ends in another way."""
        deadline = time.perf_counter() + EVENT_SECONDS
        for event, data, arrived in self.events:
            if event in names:
                return event, data, arrived
            if event in TERMINALS or arrived > deadline:
                raise RuntimeError(f"the client waited for {' or '.join(names)}, and was told {event}: {data}")
        raise ConnectionError(f"the stream ended before {' or '.join(names)}")

    def wait_for(self, *names: str) -> float:
        """The time of arrival of the next event with one of these names."""
        return self.next_of(*names)[2]

    def close(self) -> None:
        self.requests.close()
        self._stream.close()

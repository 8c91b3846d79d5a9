"""A gateway in a thread that replies as its script says, and a folder to run commands in."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

Event = tuple[str, dict[str, Any], str | None]


class Gateway:
    """`streams`: the events of each stream request in turn, `MID` standing for the message's id."""

    def __init__(self) -> None:
        self.url = ""
        self.streams: list[list[Event]] = []
        self.refusal: tuple[int, str, str] | None = None
        self.answer_refusal: tuple[int, str, str] | None = None
        self.calls: list[tuple[str, str, Any]] = []
        self.message_id = ""
        self.stage = "accepted"
        self.following = threading.Event()
        self.cancelled = threading.Event()


class Handler(BaseHTTPRequestHandler):
    gateway: Gateway

    def log_message(self, *_: Any) -> None:
        pass

    def _json(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
        gateway, path = self.gateway, self.path.removeprefix("/api/v1/agents")
        gateway.calls.append(("POST", path, body))
        refusal = gateway.refusal or (gateway.answer_refusal if path.endswith("/answer") else None)
        if refusal is not None:
            status, code, error = refusal
            self._json(status, {"success": False, "error": error, "code": code})
        elif path == "":
            self._json(201, {"agentId": "echo_u_o", "token": "t", "expiresAt": 1, "threadId": None})
        elif path.endswith("/messages"):
            gateway.message_id = body["messageId"]
            self._json(200, {"messageId": body["messageId"], "turnId": "t", "queued": False, "position": 0})
        else:
            if path.endswith("/cancel"):
                gateway.cancelled.set()
            self._json(200, {"success": True, "stage": gateway.stage})

    def do_GET(self) -> None:
        gateway = self.gateway
        gateway.calls.append(("GET", self.path, self.headers.get("Last-Event-ID")))
        events = gateway.streams.pop(0)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for name, data, id in events:
            if name == "WAIT":
                gateway.following.set()
                gateway.cancelled.wait(10)
                continue
            text = json.dumps(data).replace("MID", gateway.message_id)
            self.wfile.write(f"event: {name}\n{'' if id is None else f'id: {id}{chr(10)}'}data: {text}\n\n".encode())


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """Running, and written down in the current folder as `lobu run` would."""
    for name in ("LOBU_ADMIN_KEY", "DATABASE_URL", "LOBU_JWT_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    gateway = Gateway()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"gateway": gateway}))
    gateway.url = f"http://127.0.0.1:{server.server_address[1]}"
    state = tmp_path / ".lobu"
    state.mkdir()
    (state / "gateway_url").write_text(gateway.url + "\n")
    (state / "admin_key").write_text("lobu_key\n")
    (state / "admin_key").chmod(0o600)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield gateway
    gateway.cancelled.set()
    server.shutdown()
    thread.join(10)
    server.server_close()

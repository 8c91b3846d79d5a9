"""The spawner's messages, the worker's environment, worker types and the log pipe's budget: all pure or nearly so."""

from __future__ import annotations

import json
import os
import sys

import pytest

from supervisor.spawner import protocol
from supervisor.spawner.output import BURST_BYTES, BYTES_PER_SECOND, LINE_BYTES, LINE_COST_BYTES, OutputPipe
from supervisor.workers.environment import worker_environment
from supervisor.workers.types import WorkerType


@pytest.mark.parametrize(
    "request_",
    [
        protocol.Spawn("w", ["a", "é\n"], {"A": "b\udc80"}, "/tmp"),
        protocol.Preload(["a"], {"A": "b"}),
        protocol.Relabel("w", "label"),
        protocol.Kill("w"),
        protocol.End(),
    ],
)
def test_requests_survive_the_wire(request_: protocol.Request) -> None:
    assert protocol.decode_request(protocol.encode(request_)) == request_


@pytest.mark.parametrize(
    "reply",
    [
        protocol.Up(1, 2, 3),
        protocol.Froze(),
        protocol.Running("w", 2, 1.5, "label"),
        protocol.Spawned("w", 3, 4.5),
        protocol.SpawnFailed("w", "why"),
        protocol.Exited("w", None, 9),
        protocol.Output("w", "text\n", 0),
        protocol.Notice("a sentence"),
    ],
)
def test_replies_survive_the_wire(reply: protocol.Reply) -> None:
    assert protocol.decode_reply(protocol.encode(reply)) == reply


def test_names_on_the_wire_are_camel_case() -> None:
    wire = json.loads(protocol.encode(protocol.Exited("w", 0, None)))
    assert wire == {"type": "exited", "workerId": "w", "exitCode": 0, "signal": None}


@pytest.mark.parametrize("data", [b"", b"[]", b"7", b"{}", b'{"type":"dance"}', b'{"type":"kill"}', b"\xff"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(protocol.ProtocolError):
        protocol.decode_request(data)


def test_a_message_over_the_limit_is_refused() -> None:
    with pytest.raises(protocol.ProtocolError, match="over the limit"):
        protocol.encode(protocol.Spawn("w", ["x" * protocol.MAX_MESSAGE_BYTES], {}, "/"))


def test_environment() -> None:
    environment = worker_environment(
        workspace="/ws", dispatcher_url="http://u", token="t", worker_env={"A": "1", "HOME": "/h", "WORKER_TOKEN": "no"}
    )
    assert environment.pop("PATH")
    assert environment == {
        "LANG": "C.UTF-8",
        "HOME": "/h",
        "A": "1",
        "WORKSPACE_DIR": "/ws",
        "DISPATCHER_URL": "http://u",
        "WORKER_TOKEN": "t",
    }


def test_workers_of_one_type_differ_in_the_variables_that_a_zygote_has_none_of() -> None:
    one, other = (
        worker_environment(workspace=f"/{name}", dispatcher_url="http://u", token=name, worker_env={"A": "1"})
        for name in ("one", "other")
    )
    assert {name for name in one if one[name] != other[name]} == protocol.OWN_VARIABLES


@pytest.mark.parametrize("said", [{}, {"LOBU_SESSION_STORE": "file"}, {"LOBU_SESSION_STORE": "snapshot"}])
def test_session_store_is_the_supervisors_alone(said: dict[str, str]) -> None:
    def of(store):
        return worker_environment(workspace="", dispatcher_url="", token="", worker_env=said, session_store=store)

    assert "LOBU_SESSION_STORE" not in of("snapshot")
    assert of("file")["LOBU_SESSION_STORE"] == "file"


def test_worker_types() -> None:
    assert WorkerType("a", ("python", "-m", "x")).argv == [sys.executable, "-P", "-m", "x"]
    assert WorkerType("a", ("python", "x.py")).argv == [sys.executable, "x.py"]
    assert WorkerType("a", ("node", "python")).argv == ["node", "python"]
    for bad in ({"command": ()}, {"command": ("a\0",)}, {"sandbox": "x"}, {"warm": -1}, {"memory_mb": 0}):
        with pytest.raises(ValueError, match="worker type 'a'"):
            WorkerType(**{"name": "a", "command": ("a",), **bad})


class TestOutputPipe:
    @pytest.fixture
    def pipe(self):
        reader, self.writer = os.pipe()
        os.set_blocking(reader, False)
        pipe = OutputPipe(reader, 0.0)
        yield pipe
        pipe.close()
        if self.writer is not None:
            os.close(self.writer)

    def write(self, data: bytes) -> None:
        os.write(self.writer, data)

    def test_whole_lines(self, pipe: OutputPipe) -> None:
        assert pipe.read(0) == ("", 0)
        self.write(b"one\ntw")
        assert pipe.read(0) == ("one\n", 0)
        self.write(b"o\n\xff")
        assert pipe.read(0) == ("two\n", 0)
        assert pipe.rest(0) == ("\N{REPLACEMENT CHARACTER}\n", 0)

    def test_a_long_line_is_cut(self, pipe: OutputPipe) -> None:
        self.write(b"x" * (LINE_BYTES + 1))
        assert pipe.read(0) == ("x" * (LINE_BYTES + 1) + "\n", 0)

    def test_what_is_over_the_budget_is_dropped_and_counted(self, pipe: OutputPipe) -> None:
        line = b"y" * (1023 - LINE_COST_BYTES) + b"\n"
        for _ in range(BURST_BYTES // 1024):
            self.write(line)
        assert len(pipe.read(0)[0]) == BURST_BYTES // 1024 * len(line)
        self.write(line)
        assert pipe.read(0) == ("", 0)
        self.write(line)
        text, dropped = pipe.read(1024 / BYTES_PER_SECOND)
        assert (len(text), dropped) == (len(line), len(line))

    def test_many_short_lines_are_over_it_sooner_than_their_bytes(self, pipe: OutputPipe) -> None:
        self.write(b"y\n" * (BURST_BYTES // LINE_COST_BYTES))
        assert pipe.read(0) == ("", 0)

    def test_the_end(self, pipe: OutputPipe) -> None:
        self.write(b"last")
        os.close(self.writer)
        self.writer = None
        assert pipe.read(0) == ("", 0)
        assert pipe.read(0) == ("last\n", 0)
        assert pipe.ended

"""Metrics of processes that stand beside each other: each on a port of its own, and gone with it."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from contextlib import ExitStack

import pytest

import edge.metrics  # noqa: F401, what is served is what this process has
from supervisor.config.errors import ConfigError
from supervisor.config.settings import TelemetrySettings
from supervisor.metrics_server import metrics_served
from tests.system.lobu_process import free_port


def read(port: int | None) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def test_a_supervisor_and_its_edges() -> None:
    telemetry = TelemetrySettings(free_port())
    with ExitStack() as stack:
        supervisor = stack.enter_context(metrics_served(telemetry))
        edges = [stack.enter_context(metrics_served(telemetry, edge=True)) for _ in range(2)]
        assert supervisor == telemetry.metrics_port
        ports = [port for port in (supervisor, *edges) if port is not None]
        assert len(ports) == 3
        assert ports == sorted(set(ports))
        for port in ports:
            assert "lobu_edge_requests_total" in read(port)
    with pytest.raises(urllib.error.URLError):
        read(supervisor)


def test_none_unless_it_is_configured() -> None:
    with metrics_served(TelemetrySettings()) as port:
        assert port is None


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        telemetry = TelemetrySettings(taken.getsockname()[1])
        with pytest.raises(ConfigError, match=r"cannot be served on 127\.0\.0\.1"), metrics_served(telemetry):
            pass

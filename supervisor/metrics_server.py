"""Metrics of a process that serves no HTTP of its own, or shares its address with others: on a port for each process.

The client library's server, in a thread: it answers while the event loop stands still, which is when it is wanted most.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import start_http_server

from supervisor.config.errors import ConfigError
from supervisor.config.settings import TelemetrySettings

EDGES = 64  # on one machine, at most


@contextmanager
def metrics_served(telemetry: TelemetrySettings, *, edge: bool = False) -> Iterator[int | None]:
    """The port; None where none is configured. An edge takes the first free one behind the supervisor's.

    Raises ConfigError when there is none.
    """
    if telemetry.metrics_port is None:
        yield None
        return
    first = telemetry.metrics_port
    ports = range(first + 1, first + 1 + EDGES) if edge and first else range(first, first + 1)
    for port in ports:
        try:
            server, thread = start_http_server(port, telemetry.metrics_host)
        except OSError as error:
            failed = error
            continue
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
        return
    raise ConfigError(
        f"metrics cannot be served on {telemetry.metrics_host}:{ports[0]} ({failed.strerror}); set another port.",
        key="telemetry.metrics_port",
    )

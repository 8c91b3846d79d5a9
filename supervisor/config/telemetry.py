"""The `[telemetry]` table of lobu.toml: where metrics are served and spans are sent."""

from __future__ import annotations

from supervisor.config.settings import TelemetrySettings
from supervisor.config.table import Table
from supervisor.config.values import DEFAULT_HOST, is_endpoint


def read_telemetry(table: Table, endpoint: str | None) -> TelemetrySettings:
    """`endpoint` comes from the environment and wins over the file's."""
    port = table.integer("metrics_port", None, least=0, most=65_000)
    host = table.text("metrics_host")
    own = table.text("otlp_endpoint")
    table.finish()
    if own is not None and not is_endpoint(own):
        table.fail("otlp_endpoint", 'must be an http(s) address, like "http://127.0.0.1:4318/v1/traces"')
    return TelemetrySettings(port, host or DEFAULT_HOST, endpoint or own)

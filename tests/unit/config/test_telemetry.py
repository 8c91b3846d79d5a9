"""Where metrics are served and spans are sent, from the file and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.config.errors import ConfigError
from supervisor.config.load import load_settings
from supervisor.config.settings import TelemetrySettings


def load(tmp_path: Path, text: str = "", **environ: str) -> TelemetrySettings:
    path = tmp_path / "lobu.toml"
    path.write_text(text)
    return load_settings(path, data_dir=tmp_path, environ=environ).telemetry


def test_nothing_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert load(tmp_path) == TelemetrySettings(None, "127.0.0.1", None)


def test_the_file(tmp_path: Path) -> None:
    text = '[telemetry]\nmetrics_port = 9464\nmetrics_host = "::1"\notlp_endpoint = "http://c:4318/v1/traces"\n'
    assert load(tmp_path, text) == TelemetrySettings(9464, "::1", "http://c:4318/v1/traces")


def test_the_environment_as_opentelemetry_has_it(tmp_path: Path) -> None:
    common, traces = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    text = '[telemetry]\notlp_endpoint = "http://file/v1/traces"\n'
    assert load(tmp_path, text, **{common: "http://a:4318/"}).otlp_endpoint == "http://a:4318/v1/traces"
    assert load(tmp_path, text, **{common: "http://a", traces: "http://b/x"}).otlp_endpoint == "http://b/x"


@pytest.mark.parametrize(
    ("text", "environ", "said"),
    [
        ("[telemetry]\nmetrics_port = 70000\n", {}, "lobu.toml:2: `telemetry.metrics_port` must be from 0 to 65000"),
        ('[telemetry]\notlp_endpoint = "c:4318"\n', {}, "must be an http"),
        ("[telemetry]\nmetrics = 1\n", {}, "metrics"),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "grpc://c"}, "OTEL_EXPORTER_OTLP_ENDPOINT must be an http"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load(tmp_path, text, **environ)
    assert said in str(caught.value)

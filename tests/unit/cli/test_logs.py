"""No credential and nothing that people wrote gets into a log line."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from supervisor.logs import configure_logging, mask


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize(
    "text",
    [
        "lobu_0123456789abcdefSECRET",
        "eyJhbGciOiJIUzI1NiJ9.eyJTRUNSRVQiOjF9.SECRET",
        "Authorization: Bearer SECRET-0123",
        "postgresql://user:SECRET@host/db",
        "host=h password=SECRET dbname=x",
        "sk-SECRETSECRETSECRETSECRET",
    ],
)
def test_credentials_are_masked(text: str) -> None:
    assert "SECRET" not in mask(f"before {text} after")


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_lines(log_format: str) -> None:
    stream = io.StringIO()
    configure_logging(log_format, stream=stream)  # type: ignore[arg-type]
    log = structlog.get_logger()
    log.info("turn ended", content="SECRET", run_token="SECRET", turn="t1", nested={"api_key": "SECRET", "n": 1})
    log.debug("not shown")
    try:
        raise RuntimeError("postgres://u:SECRET@h")
    except RuntimeError:
        log.exception("it failed")
    logging.getLogger("other").warning("from %s", "postgres://u:SECRET@h")
    text = stream.getvalue()
    assert "SECRET" not in text
    assert "not shown" not in text
    assert "RuntimeError" in text
    if log_format == "json":
        lines = [json.loads(line) for line in text.splitlines()]
        assert lines[0]["turn"] == "t1"
        assert lines[0]["nested"] == {"api_key": "[hidden]", "n": 1}
        assert lines[2]["event"].startswith("from postgres://u:[hidden]@h")

"""No credential and nothing that people wrote gets into a log line."""

from __future__ import annotations

import io
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

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


def test_a_line_that_nobody_reads_fails_nobody() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        configure_logging("text", stream=stream)
        structlog.get_logger().error("nobody reads this")
        logging.getLogger("library").error("nor this")


def test_a_line_for_which_there_is_no_room_fails_nobody() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        configure_logging("text", stream=io.TextIOWrapper(full, write_through=True))
        structlog.get_logger().error("there is no room for this")
        logging.getLogger("library").error("nor for this")


@pytest.mark.parametrize(
    "text",
    [
        "lobu_0123456789abcdefSECRET",
        "eyJhbGciOiJIUzI1NiJ9.eyJTRUNSRVQiOjF9.SECRET",
        "Authorization: Bearer SECRET-0123",
        "postgresql://user:SECRET@host/db",
        "1postgresql+x://:SECRET@host/db",
        "host=h password=SECRET dbname=x",
        "sk-SECRETSECRETSECRETSECRET",
    ],
)
def test_credentials_are_masked(text: str) -> None:
    assert "SECRET" not in mask(f"before {text} after")


@pytest.mark.parametrize("run", ["a", "0f", "eyJ", "-eyJ", "lobu_", "bot1", "sk-", "://", "password='", "bearer "])
def test_a_long_line_of_a_worker_holds_nobody_up(run: str) -> None:
    """As long as one read of a worker's output; in processor time, since others may be at work."""
    line = run * (72 * 1024 // len(run))
    began = time.process_time()
    mask(line)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("log_format", ["json", "text"])
@pytest.mark.parametrize("line", ["\x1b[2Jgone", "over\rwritten", "a\x00b", "\x9b2Jgone", "\u202egnorw"])
def test_a_workers_line_does_not_drive_the_terminal(log_format: str, line: str) -> None:
    stream = io.StringIO()
    configure_logging(log_format, stream=stream)  # type: ignore[arg-type]
    structlog.get_logger().info("worker.output", line=line, plain="as-it-is")
    assert stream.getvalue().rstrip("\n").isprintable()
    if log_format == "text":
        assert f"line={line!r}" in stream.getvalue()
        assert "plain=as-it-is" in stream.getvalue()


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_each_line_says_its_priority_where_the_journal_reads_it(tmp_path: Path, log_format: str) -> None:
    with (tmp_path / "log").open("w+") as stream:
        status = os.fstat(stream.fileno())
        here = f"{status.st_dev}:{status.st_ino}"
        for journal in (here, "1:2", ""):
            configure_logging(log_format, stream=stream, journal=journal)  # type: ignore[arg-type]
            log = structlog.get_logger()
            log.info("as usual")
            log.warning("look")
            try:
                raise RuntimeError("why")
            except RuntimeError:
                log.exception("broken")
            logging.getLogger("other").error("theirs")
            stream.flush()
            lines = (tmp_path / "log").read_text().splitlines()
            if journal == here:
                assert {line[:3] for line in lines} == {"<6>", "<4>", "<3>"}
                assert [line[:3] for line in lines if "as usual" in line] == ["<6>"]
                assert [line[:3] for line in lines if "theirs" in line] == ["<3>"]
                assert all(line.startswith("<3>") for line in lines if "Traceback" in line)
            else:
                assert not any(line.startswith("<") for line in lines)
            stream.seek(0)
            stream.truncate()


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

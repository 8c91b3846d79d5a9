"""Logging: structlog onto stderr, as text or JSON lines. Owns what must never be in a log.

Two nets under the rule that nobody logs secrets or what people wrote: fields with a telling name lose their value, and
everything that looks like a credential is masked in every value, tracebacks included.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO, cast

import structlog

from supervisor.lines import Lines

HIDDEN = "[hidden]"

_HIDDEN_NAMES = re.compile(
    r"(?i)(^|_|\b)(secret|token|password|passwd|authorization|cookie|api_?key|admin_?key|private_?key|credentials?|"
    r"content|final_?text|prompt|answer|payload|body)s?$"
)
# Each takes time in proportion to the text, however it is made: a worker's line may have 72 kB, and the loop waits. So
# nothing without a bound is tried from many places at a time.
_CREDENTIALS = [
    (re.compile(r"lobu_[A-Za-z0-9_-]{16,}"), f"lobu_{HIDDEN}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,2048}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic) +[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    (re.compile(r"\b(?:bot)?[0-9]{5,20}:[A-Za-z0-9_-]{30,}"), HIDDEN),  # of a Telegram bot
    (re.compile(r"\bsk-[A-Za-z0-9_-]{16,}"), HIDDEN),
    (re.compile(r"(://[^\s:/@]*):[^\s/@]+@"), rf"\1:{HIDDEN}@"),
    (re.compile(r"(?i)\b(password|sslpassword)=('[^']*'|\S+)"), rf"\1={HIDDEN}"),
]

_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}

Event = MutableMapping[str, Any]


def configure_logging(
    log_format: Literal["text", "json"], *, level: str = "info", stream: TextIO | None = None, journal: str = ""
) -> None:
    """Set up structlog and the standard library's logging (used by dependencies) for this process. Call it once.

    `journal` is systemd's JOURNAL_STREAM: where it names the stream, lines say their priority to the journal.
    """
    output = stream or sys.stderr
    lines = cast(TextIO, Lines(output))
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        hide,
    ]
    renderer: structlog.types.Processor
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer(default=str)
    else:
        colors = output.isatty()
        shared.append(quote)
        renderer = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    if _is_journal(output, journal):
        renderer = _with_priority(renderer)
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=lines),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Dependencies log addresses and headers at INFO; nobody here asked for that.
    root.setLevel(max(number, logging.WARNING))


def _is_journal(stream: TextIO, journal: str) -> bool:
    """Whether the stream is the one that the service manager reads for its journal, and not a file or a pipe."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return journal == f"{status.st_dev}:{status.st_ino}"


def _with_priority(renderer: structlog.types.Processor) -> structlog.types.Processor:
    """As sd-daemon(3) has it: `<N>` before each line, which the journal takes for the line's priority."""

    def render(logger: object, method: str, event: Event) -> str:
        priority = _PRIORITIES.get(str(event.get("level")), _PRIORITIES["info"])
        return "\n".join(f"<{priority}>{line}" for line in str(renderer(logger, method, event)).split("\n"))

    return render


def hide(_: object, __: str, event: Event) -> Event:
    """The structlog processor that takes out what must not be logged."""
    for name, value in event.items():
        if name != "event" and _HIDDEN_NAMES.search(name) and value is not None:
            event[name] = HIDDEN
        else:
            event[name] = _masked(value)
    return event


class _Quoted:
    """A text as Python would write it, escapes and all. The renderer does so by itself only where there are spaces."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return repr(self._text)


def quote(_: object, __: str, event: Event) -> Event:
    """The structlog processor that keeps what a worker printed from driving the terminal that shows the log."""
    for name, value in event.items():
        if isinstance(value, str) and name not in ("event", "exception") and not value.isprintable():
            event[name] = _Quoted(value)
    return event


def mask(text: str) -> str:
    """`text` with everything that looks like a credential replaced."""
    for pattern, replacement in _CREDENTIALS:
        text = pattern.sub(replacement, text)
    return text


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {
            name: HIDDEN if isinstance(name, str) and _HIDDEN_NAMES.search(name) else _masked(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    if isinstance(value, BaseException):
        return mask(repr(value))
    return value

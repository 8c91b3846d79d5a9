"""Gives spans to an OpenTelemetry collector. The one place that knows a tracing library, which is an extra.

The library's own batcher does the work, in a thread of its own: bounded (what is over its queue is dropped, and counted
by it), with deadlines, and asleep while there is nothing. Headers, the service's further attributes and the like come
from the variables that OpenTelemetry defines.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from lobu_actors import telemetry
from lobu_actors.contract.tracing import Span
from lobu_actors.conversation.spans import SpanSink
from supervisor.config.errors import ConfigError
from supervisor.membership import VERSION

QUEUE_SPANS = 8192
BATCH_SPANS = 512
DELAY_MILLISECONDS = 1000.0
EXPORT_MILLISECONDS = 5000.0
FLUSH_MILLISECONDS = 2000
_NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")


@contextmanager
def spans_told(endpoint: str | None, service: str) -> Iterator[SpanSink | None]:
    """A sink for spans as long as the context is open; None without an endpoint. Raises ConfigError."""
    if endpoint is None:
        yield None
        return
    _check_installed()
    exporter = _Exporter(endpoint, service)
    try:
        yield exporter.tell
    finally:
        exporter.close()


def _check_installed() -> None:
    try:
        missing = any(importlib.util.find_spec(name) is None for name in _NEEDED)
    except ModuleNotFoundError:
        missing = True
    if missing:
        raise ConfigError(
            "spans are to be sent, and OpenTelemetry is not installed: `pip install 'lobu-actors[otel]'`.",
            key="OTEL_EXPORTER_OTLP_ENDPOINT",
        )


class _Exporter:
    def __init__(self, endpoint: str, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        # Its warnings, once a second, while a collector is away; that it is, its own alerts say.
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)
        self._resource = Resource.create({"service.name": service, "service.version": VERSION})
        self._processor = BatchSpanProcessor(
            OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_MILLISECONDS / 1000),
            max_queue_size=QUEUE_SPANS,
            schedule_delay_millis=DELAY_MILLISECONDS,
            max_export_batch_size=BATCH_SPANS,
            export_timeout_millis=EXPORT_MILLISECONDS,
        )

    def tell(self, span: Span) -> None:
        from opentelemetry.sdk.trace import Event, ReadableSpan
        from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

        def context(trace_id: str, span_id: str) -> SpanContext:
            flags = TraceFlags(TraceFlags.SAMPLED)
            return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=flags)

        telemetry.SPANS.inc()
        self._processor.on_end(
            ReadableSpan(
                span.name,
                context=context(span.trace_id, span.span_id),
                parent=None if span.parent_id is None else context(span.trace_id, span.parent_id),
                resource=self._resource,
                attributes=dict(span.attributes),
                events=[Event(name, timestamp=_nanoseconds(at_ms)) for at_ms, name in span.events],
                links=[Link(context(*link)) for link in span.links],
                kind=SpanKind.SERVER if span.name == "lobu.turn" else SpanKind.INTERNAL,
                status=Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, span.error),
                start_time=_nanoseconds(span.start_ms),
                end_time=_nanoseconds(span.end_ms),
            )
        )

    def close(self) -> None:
        self._processor.force_flush(FLUSH_MILLISECONDS)
        self._processor.shutdown()  # type: ignore[no-untyped-call]


def _nanoseconds(milliseconds: float) -> int:
    return int(milliseconds * 1e6)

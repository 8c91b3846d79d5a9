"""Every metric that the edge gives, with its labels. Labels have few values: routes and statuses, never ids."""

from __future__ import annotations

from functools import cache

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("lobu_edge_requests", "Requests answered.", ["route", "status"])
ACCEPT_SECONDS = Histogram(
    "lobu_edge_accept_seconds",
    "From the read request to the committed and hinted message.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
MESSAGES = Counter("lobu_edge_messages", "Messages by outcome.", ["outcome"])
STREAMS_OPEN = Gauge("lobu_edge_streams_open", "Open event streams.")
STREAM_BYTES = Counter("lobu_edge_stream_bytes", "Bytes of event streams handed to connections.")
STREAM_REREADS = Counter("lobu_edge_stream_rereads", "Times a stream went back to the event log.", ["reason"])
DROPPED_ITEMS = Counter(
    "lobu_edge_dropped_items",
    "Pieces of text, statuses and events that went by before a slow reader took them; it read the durable ones later.",
)
CONNECTIONS_OPEN = Gauge("lobu_edge_connections_open", "Open connections.")
CONNECTIONS_CUT = Counter("lobu_edge_connections_cut", "Connections cut because they outlived the stop grace.")
GUARDRAILS = Counter("lobu_edge_guardrails", "Messages that a guardrail kept from workers.", ["code"])


@cache
def requests(route: str, status: int) -> Counter:
    """The count of one kind of request. Kept, since looking a label up costs more than counting."""
    return REQUESTS.labels(route, str(status))


@cache
def messages(outcome: str) -> Counter:
    return MESSAGES.labels(outcome)

"""Every number and switch of the edge, frozen and validated. Reads no environment and no file.

Defaults are the contract's. Names carry their units; a name without one counts things.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import attrs

from lobu_actors.contract.ids import is_id

_PUBLIC_URL = re.compile(r"https?://[A-Za-z0-9.\-_\[\]:]+(?:/[A-Za-z0-9._~/-]*)?\Z")
BOUNDS = "bounds"  # in the metadata of each number: the least and the most that it may be
MAX_PING_SECONDS = 15.0  # the contract's promise to readers


def _between(low: float, high: float) -> Callable[[Any, attrs.Attribute[Any], float], None]:
    def check(_: Any, attribute: attrs.Attribute[Any], value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise ValueError(f"edge setting {attribute.name} must lie between {low:g} and {high:g}, not {value!r}")

    return check


def _is_public_url(_: Any, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and _PUBLIC_URL.match(value) is None:
        raise ValueError(f"edge setting {attribute.name} must be an http(s) address without query, not {value!r}")


def _is_organization(_: Any, attribute: attrs.Attribute[Any], value: str) -> None:
    if not is_id(value):
        raise ValueError(f"edge setting {attribute.name} is not a fit id: {value!r}")


def _limit(default: int, low: int, high: int) -> Any:
    return attrs.field(default=default, validator=_between(low, high), metadata={BOUNDS: (low, high)})


def _seconds(default: float, low: float, high: float) -> Any:
    return attrs.field(default=default, validator=_between(low, high), metadata={BOUNDS: (low, high)})


@attrs.frozen(kw_only=True)
class EdgeSettings:
    """Raises ValueError, naming the setting, for what is out of its range."""

    public_url: str | None = attrs.field(default=None, validator=_is_public_url)  # None: as the request's Host says
    organization_id: str = attrs.field(default="default", validator=_is_organization)  # of the bootstrap key

    # messages
    max_message_bytes: int = _limit(1 << 20, 1 << 10, 64 << 20)
    max_snapshot_bytes: int = _limit(64 << 20, 1 << 10, 1 << 30)  # that a worker posts; as JSON it may be twice this
    max_json_depth: int = _limit(32, 4, 200)
    max_owed_turns: int = _limit(100, 1, 100_000)  # per conversation
    accept_seconds: float = _seconds(10.0, 0.1, 60.0)  # shielded: a commit and its hint
    body_seconds: float = _seconds(30.0, 0.1, 600.0)  # for a request's whole body

    # guardrails
    policy_cache_seconds: float = _seconds(3.0, 0.0, 60.0)
    policy_cache_entries: int = _limit(10_000, 1, 1_000_000)
    guardrails_at_once: int = _limit(8, 1, 1000)  # messages that are being asked about
    guardrails_seconds: float = _seconds(60.0, 0.1, 600.0)  # for one message, waiting for its place included
    guardrail_commands: frozenset[tuple[str, ...]] = frozenset()  # programs of this host's own configuration

    # files
    upload_max_files: int = _limit(10, 1, 1000)
    upload_file_max_bytes: int = _limit(50_000_000, 1, 1 << 40)
    upload_total_max_bytes: int = _limit(100_000_000, 1, 1 << 40)
    upload_seconds: float = _seconds(900.0, 0.1, 3600.0)  # for a whole upload; each wait for more is `body_seconds`
    max_uploads: int = _limit(32, 1, 10_000)  # in this process, each with about 1 MiB of memory
    max_listed_files: int = _limit(1000, 1, 10_000)

    # streams
    max_streams_per_conversation: int = _limit(5, 1, 10_000)
    max_streams: int = _limit(10_000, 1, 1_000_000)  # in this process
    stream_buffer_bytes: int = _limit(256 << 10, 16 << 10, 16 << 20)
    ping_seconds: float = _seconds(10.0, 0.01, MAX_PING_SECONDS)
    socket_silence_seconds: float = _seconds(45.0, 0.05, 3600.0)  # a WebSocket that answers no ping so long ends
    retry_ms: int = _limit(1000, 100, 60_000)
    drain_spacing_seconds: float = _seconds(0.02, 0.0, 1.0)  # between the ends of two streams when the edge stops
    drain_seconds: float = _seconds(2.0, 0.0, 60.0)  # for the ends of all of them
    drain_reconnect_ms: int = _limit(100, 0, 60_000)  # to readers whose server begins to drain: others are there
    drain_again_ms: int = _limit(500, 0, 60_000)  # to those that come to one which drains, or is without its store
    cancel_on_disconnect: bool = attrs.field(  # of dialects in which a connection is all that a client can end
        default=True, validator=attrs.validators.instance_of(bool)
    )
    replay_page_events: int = _limit(32, 1, 1000)
    read_seconds: float = _seconds(4.0, 0.05, 30.0)  # one read of the event log by a stream
    poll_seconds: float = _seconds(5.0, 0.05, 600.0)  # backstop for a lost hint while something is owed
    unheard_poll_seconds: float = _seconds(1.0, 0.05, 600.0)  # the same when its owner may be a host without a link
    idle_poll_seconds: float = _seconds(60.0, 0.05, 3600.0)  # the same when nothing seems to be
    delivery_entries: int = _limit(10_000, 1, 10_000_000)  # newest terminal events of which it is known when they went
    trace_entries: int = _limit(10_000, 1, 10_000_000)  # turns whose delivery is to be told of
    store_patience_seconds: float = _seconds(120.0, 0.1, 3600.0)  # a stream outlives a store that is away this long

    # operations page
    max_lookers: int = _limit(8, 0, 1000)  # that look at the same time, in this process
    look_seconds: float = _seconds(1.0, 0.05, 60.0)  # between two looks for each of them

    # links of remote workers
    max_worker_links: int = _limit(1000, 0, 100_000)  # in this process
    worker_join_seconds: float = _seconds(10.0, 0.1, 60.0)  # from the connection to its first message
    worker_hosts_seconds: float = _seconds(2.0, 0.05, 60.0)  # how often an idle place is offered to hosts that are new

    # connections
    max_connections: int = _limit(20_000, 1, 1_000_000)  # and at most 3/4 of what the process may have open
    stalled_reader_seconds: float = _seconds(20.0, 1.0, 3600.0)  # TCP_USER_TIMEOUT
    send_buffer_bytes: int = _limit(256 << 10, 4 << 10, 16 << 20)  # SO_SNDBUF
    backlog: int = _limit(1024, 1, 65_535)
    max_header_bytes: int = _limit(16 << 10, 4 << 10, 1 << 20)
    keep_alive_seconds: float = _seconds(75.0, 0.1, 3600.0)  # idle, or still sending a head; up to an eighth more
    first_request_seconds: float = _seconds(1.0, 0.0, 60.0)  # from the connection on, when the edge stops meanwhile
    keep_alive_max_requests: int = _limit(1_000_000_000, 1, 1_000_000_000)
    linger_seconds: float = _seconds(
        2.0, 0.0, 30.0
    )  # to take in the rest of a refused body, so that the answer arrives
    stop_grace_seconds: float = _seconds(5.0, 0.0, 600.0)

    # authentication
    token_lifetime_seconds: int = _limit(86_400, 1, 366 * 86_400)
    token_leeway_seconds: int = _limit(10, 0, 300)  # clocks of two hosts differ
    ticket_seconds: int = _limit(30, 1, 300)  # from asking for a stream's ticket to using it
    session_seconds: int = _limit(12 * 3600, 60, 30 * 86_400)  # of a browser's cookie, whatever it was got with
    api_key_cache_seconds: float = _seconds(5.0, 0.0, 300.0)  # how long a good credential is believed, tokens too
    api_key_cache_entries: int = _limit(10_000, 1, 1_000_000)
    conversation_cache_entries: int = _limit(10_000, 1, 10_000_000)
    requests_per_second: float = _seconds(2000.0, 0.0, 1_000_000.0)  # of one API key, or of one user's tokens; 0: any
    request_burst: int = _limit(5000, 1, 1_000_000)  # that may come at once after a pause
    rate_entries: int = _limit(10_000, 1, 1_000_000)  # callers whose rate is known

    # health
    ready_seconds: float = _seconds(2.0, 0.05, 30.0)

"""Every metric of this program, in one place with its labels. Served as Prometheus text at `/metrics`."""

from __future__ import annotations

from functools import cache

from prometheus_client import Counter, Gauge, Histogram

_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

TURNS_ENDED = Counter("lobu_turns_ended_total", "Terminal events committed by this host.", ["status", "code"])
FENCED_WRITES = Counter("lobu_fenced_writes_total", "Writes refused because the lease was lost.", ["statement"])
DROPPED_FRAMES = Counter("lobu_dropped_frames_total", "Worker frames ignored, by reason.", ["reason"])
ACTOR_CRASHES = Counter("lobu_actor_crashes_total", "Conversation actors that failed and were started again.")
FREEZES = Counter("lobu_freezes_total", "Times that this host froze its workers, as it could not renew its lease.")
TAKEOVERS = Counter("lobu_takeovers_total", "Hosts whose end this host has proved, before their lease was over.")
HINTS_DROPPED = Counter("lobu_hints_dropped_total", "Hints not taken by an actor; a sweep finds the turn.")
PLACED_ELSEWHERE = Counter("lobu_placed_elsewhere_total", "Conversations left to another host, which was told.")
SWEPT = Counter("lobu_swept_conversations_total", "Conversations woken by the sweeper.")
STORE_RETRIES = Counter("lobu_store_retries_total", "Store calls asked again by their key.", ["statement"])
SINGLETONS_HELD = Gauge("lobu_singleton_held", "1 while this host runs that singleton.", ["kind", "key"])
WATCHER_FIRINGS = Counter("lobu_watcher_firings_total", "Firings of watchers, by outcome.", ["outcome"])
PLATFORM_UPDATES = Counter("lobu_platform_updates_total", "Updates from chat platforms.", ["platform", "outcome"])
PLATFORM_DELIVERIES = Counter("lobu_platform_deliveries_total", "Deliveries to chats.", ["platform", "outcome"])
LINKS_UP = Gauge("lobu_links_up", "Links to other hosts that are up, by who opened them.", ["direction"])
LINK_RECONNECTS = Counter("lobu_link_reconnects_total", "Links that ended or could not be made, and are tried again.")
LINK_FORWARDS = Counter("lobu_link_forwards_total", "Calls and hints sent to the owner over a link.", ["kind"])
LINK_COALESCED = Counter("lobu_link_coalesced_total", "Changes that joined one not yet sent over a link.")
LINK_NOTICES = Counter("lobu_link_notices_total", "Hints told through the store because there was no link.")
ACTIVE_ACTORS = Gauge("lobu_active_actors", "Conversation actors in memory.")
TURN_SECONDS = Histogram(
    "lobu_turn_seconds", "From a message's acceptance to its terminal event.", ["status"], buckets=_LATENCY_BUCKETS
)
CRASH_SECONDS = Histogram(
    "lobu_crash_to_terminal_seconds",
    "From the death of a worker to the terminal event of what it worked on.",
    buckets=_LATENCY_BUCKETS,
)
OWED_TURNS = Gauge("lobu_owed_turns", "Turns that are owed a terminal event, in the whole database.", ["state"])
OLDEST_OWED_SECONDS = Gauge("lobu_oldest_owed_seconds", "Age of the oldest of them, in the whole database.")
LOOP_LAG_SECONDS = Histogram(
    "lobu_event_loop_lag_seconds",
    "How late this process's event loop was, once a second.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
LIVE_RUNS = Gauge("lobu_live_runs", "Conversations of this host that have a run under way.")
WORKERS = Gauge("lobu_workers", "Worker processes that belong to a conversation.", ["state"])
IDLE_WORKERS = Gauge("lobu_idle_workers", "Worker processes that are kept ready.")
CHILD_FAILURES = Counter("lobu_child_failures_total", "Failures of running parts of the tree.", ["child"])
SPANS = Counter("lobu_spans_total", "Spans handed to the exporter.")
HOST_TRUST_SECONDS = Gauge("lobu_host_trust_seconds", "For how long this host still trusts its lease; below 0: frozen.")


@cache
def turn_seconds(status: str) -> Histogram:
    """Kept, since looking a label up costs as much as observing."""
    return TURN_SECONDS.labels(status)

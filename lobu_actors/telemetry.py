"""Every metric of this program, in one place with its labels. Served as Prometheus text at `/metrics`."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

TURNS_ENDED = Counter("lobu_turns_ended_total", "Terminal events committed by this host.", ["status", "code"])
FENCED_WRITES = Counter("lobu_fenced_writes_total", "Writes refused because the lease was lost.", ["statement"])
DROPPED_FRAMES = Counter("lobu_dropped_frames_total", "Worker frames ignored, by reason.", ["reason"])
WORKERS_GONE = Counter("lobu_workers_gone_total", "Workers that ended, by reason.", ["reason"])
ACTOR_CRASHES = Counter("lobu_actor_crashes_total", "Conversation actors that failed and were started again.")
HINTS_DROPPED = Counter("lobu_hints_dropped_total", "Hints not taken by an actor; a sweep finds the turn.")
SWEPT = Counter("lobu_swept_conversations_total", "Conversations woken by the sweeper.")
STORE_RETRIES = Counter("lobu_store_retries_total", "Store calls asked again by their key.", ["statement"])
ACTIVE_ACTORS = Gauge("lobu_active_actors", "Conversation actors in memory.")
LIVE_WORKERS = Gauge("lobu_live_workers", "Worker processes, idle ones included.")
ACCEPT_TO_TERMINAL = Histogram(
    "lobu_accept_to_terminal_seconds",
    "From the actor's hearing of a turn to its committed terminal event.",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)

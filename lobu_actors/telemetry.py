"""Every metric of this program, in one place with its labels. Served as Prometheus text at `/metrics`."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

TURNS_ENDED = Counter("lobu_turns_ended_total", "Terminal events committed by this host.", ["status", "code"])
FENCED_WRITES = Counter("lobu_fenced_writes_total", "Writes refused because the lease was lost.", ["statement"])
DROPPED_FRAMES = Counter("lobu_dropped_frames_total", "Worker frames ignored, by reason.", ["reason"])
ACTOR_CRASHES = Counter("lobu_actor_crashes_total", "Conversation actors that failed and were started again.")
FREEZES = Counter("lobu_freezes_total", "Times that this host froze its workers, as it could not renew its lease.")
HINTS_DROPPED = Counter("lobu_hints_dropped_total", "Hints not taken by an actor; a sweep finds the turn.")
SWEPT = Counter("lobu_swept_conversations_total", "Conversations woken by the sweeper.")
STORE_RETRIES = Counter("lobu_store_retries_total", "Store calls asked again by their key.", ["statement"])
ACTIVE_ACTORS = Gauge("lobu_active_actors", "Conversation actors in memory.")

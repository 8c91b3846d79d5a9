"""Every metric of this program, in one place with its labels. Served as Prometheus text at `/metrics`."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

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

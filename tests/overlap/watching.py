"""Watchers that fire all the while: each firing that was decided on is one turn with one end, of a time that was due.

What is decided is noted in the campaign's own database, by a trigger beside the statement that decides.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from itertools import pairwise

import psycopg

EVERY_SECONDS = 4
AGENTS = ("forked", "gpu")
CONFIG = "".join(
    f"""
[[watchers]]
id = "of-{agent}"
agent = "{agent}"
cron = "*/{EVERY_SECONDS} * * * * *"
content = "watched by {agent}"
"""
    for agent in AGENTS
)
_NOTES = """
CREATE TABLE decided_firing (watcher_id text, scheduled_at timestamptz, decided_at timestamptz);
CREATE FUNCTION note_firing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO decided_firing VALUES (NEW.watcher_id, NEW.pending_for, clock_timestamp());
    RETURN NULL;
END $$;
CREATE TRIGGER note_firing AFTER UPDATE ON watcher_state FOR EACH ROW
    WHEN (NEW.pending_for IS NOT NULL AND NEW.pending_for IS DISTINCT FROM OLD.pending_for)
    EXECUTE FUNCTION note_firing();
"""
_DECIDED = "SELECT watcher_id, scheduled_at, decided_at FROM decided_firing ORDER BY watcher_id, decided_at"
_PENDING = "SELECT watcher_id, pending_for FROM watcher_state WHERE pending_for IS NOT NULL"
_FIRED = """
SELECT t.payload ->> 'watcherId', (t.payload ->> 'scheduledAt')::timestamptz, t.content, t.accepted_at, t.status,
    (SELECT e.data ->> 'finalText' FROM conversation_event e
     WHERE e.organization_id = t.organization_id AND e.turn_id = t.turn_id AND e.type = 'complete')
FROM turn t WHERE t.message_id LIKE 'watcher:%'
"""


def note_firings(url: str) -> None:
    """From now on."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_NOTES)


def fires(url: str, since: datetime) -> list[str]:
    """What is lacking until all that was decided on before `since` has its end, and each watcher fired behind it."""
    with psycopg.connect(url, autocommit=True) as connection:
        decided = connection.execute(_DECIDED).fetchall()
        fired = connection.execute(_FIRED).fetchall()
    later = {watcher for watcher, scheduled_at, _ in decided if scheduled_at > since}
    found = [f"of-{agent} fires no more" for agent in AGENTS if f"of-{agent}" not in later]
    return found + [
        f"{watcher}'s turn of {scheduled_at} has no end"
        for watcher, scheduled_at, _, accepted_at, status, _ in fired
        if accepted_at < since and status in ("queued", "running")
    ]


def fired_wrong(url: str) -> list[str]:
    with psycopg.connect(url, autocommit=True) as connection:
        pending = {(watcher, at) for watcher, at in connection.execute(_PENDING).fetchall()}  # before what is decided
        decided = connection.execute(_DECIDED).fetchall()
        fired = connection.execute(_FIRED).fetchall()
        later = {(watcher, at) for watcher, at in connection.execute(_PENDING).fetchall()}
    found: list[str] = []
    for before, (watcher, scheduled_at, decided_at) in pairwise([("", datetime.min, None), *decided]):
        if scheduled_at.second % EVERY_SECONDS or scheduled_at.microsecond or scheduled_at > decided_at:
            found.append(f"{watcher} decided on {scheduled_at} at {decided_at}")
        if before[0] == watcher and before[1] >= scheduled_at:
            found.append(f"{watcher} decided on {scheduled_at} behind {before[1]}")
    turns = Counter((watcher, at) for watcher, at, *_ in fired)
    made = {(watcher, at) for watcher, at, _ in decided}
    first = {watcher: min(at for one, at in made if one == watcher) for watcher, _ in made}
    for watcher, at in made - pending - later:
        if turns[watcher, at] != 1:
            found.append(f"{watcher}'s firing of {at} is {turns[watcher, at]} turns")
    for watcher, at, content, _, status, text in fired:
        if (watcher, at) not in made and at >= first.get(watcher, at):
            found.append(f"{watcher}'s turn of {at} was not decided on")
        if f"watched by {watcher.removeprefix('of-')}" != content or (status == "completed" and text != content):
            found.append(f"{watcher}'s turn of {at} says {content!r} and {text!r}")
    return found

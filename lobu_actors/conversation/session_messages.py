"""What a conversation's actor is told, and wants done, about its session as a whole. Part of `messages`."""

from __future__ import annotations

import attrs

from lobu_actors.store.records import Turn


@attrs.frozen
class PurgeRequest:
    """The worker of this run wants what is stored of the conversation's sessions to be deleted."""

    run_id: str


@attrs.frozen
class SessionReset:
    """The new generation is committed, and nothing of the old one is left."""

    turn: Turn


@attrs.frozen
class ResetRefused:
    """The turn was not queued any more: nothing was touched."""

    turn: Turn


@attrs.frozen
class ResetFailed:
    """The old session file could not be removed."""

    turn: Turn
    detail: str


@attrs.frozen
class SnapshotsPurged:
    number: int


# --- effects


@attrs.frozen
class ResetSession:
    """Remove the session file, begin the next generation. Answers SessionReset, ResetRefused, ResetFailed or LeaseLost.

    The turn's payload may have `carrySummary` (the next session's runs are told what was said in this one), `provider`
    and `model` (the conversation's, from now on).
    """

    turn: Turn


@attrs.frozen
class PurgeSnapshots:
    """Answers SnapshotsPurged or LeaseLost."""

"""What a conversation's actor is told, and wants done, about its session as a whole. Part of `messages`."""

from __future__ import annotations

import msgspec

from lobu_actors.store.records import Turn


class PurgeRequest(msgspec.Struct, frozen=True):
    """The worker of this run wants what is stored of the conversation's sessions to be deleted."""

    run_id: str


class SessionReset(msgspec.Struct, frozen=True):
    """The new generation is committed, and nothing of the old one is left."""

    turn: Turn


class ResetRefused(msgspec.Struct, frozen=True):
    """The turn was not queued any more: nothing was touched."""

    turn: Turn


class ResetFailed(msgspec.Struct, frozen=True):
    """The old session file could not be removed."""

    turn: Turn
    detail: str


class SnapshotsPurged(msgspec.Struct, frozen=True):
    number: int


# --- effects


class ResetSession(msgspec.Struct, frozen=True):
    """Remove the session file, begin the next generation. Answers SessionReset, ResetRefused, ResetFailed or LeaseLost.

    The turn's payload may have `carrySummary` (the next session's runs are told what was said in this one), `provider`
    and `model` (the conversation's, from now on).
    """

    turn: Turn


class PurgeSnapshots(msgspec.Struct, frozen=True):
    """Answers SnapshotsPurged or LeaseLost."""

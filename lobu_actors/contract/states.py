"""States of turns, runs and hosts, and who may move each. The schema's CHECK constraints mirror these; a test compares.

A turn is moved by its conversation's actor alone, in statements guarded by the lease; the edge only creates it.
"""

from __future__ import annotations

from enum import StrEnum


class TurnStatus(StrEnum):
    """`queued`, then `running`, then one of the terminal ones, which is never left.

    Back to `queued` only by retry, hand-over or takeover, with attempt + 1. `queued` ends without running when it is
    cancelled, refused by a guardrail, when its worker cannot be started, or when it asks for what the actor does itself
    (a new session).
    """

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


TERMINAL_TURN_STATUSES = frozenset({TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.TIMEOUT, TurnStatus.CANCELLED})


class RunStatus(StrEnum):
    """One attempt at one or more joined turns. `live` until its owner, or whoever takes over from it, ends it."""

    LIVE = "live"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    REQUEUED = "requeued"


class HostState(StrEnum):
    ACTIVE = "active"
    DRAINING = "draining"
    DEAD = "dead"


class Alone(StrEnum):
    """Why a host tolerates no other host beside it on its database."""

    NOT_ALLOWED = "not_allowed"  # nobody has said that there may be several
    FILE_SESSIONS = "file_sessions"  # its sessions are on its own disk


class OnBusy(StrEnum):
    """What a message asks for when its conversation is busy."""

    ENQUEUE = "enqueue"
    MERGE = "merge"
    STEER = "steer"
    INTERRUPT = "interrupt"
    REJECT = "reject"


class Role(StrEnum):
    """What an API key may do: `admin` acts for every user of its organization, `user` for its own user only.

    `worker` joins as a remote worker of the type that stands where a user stands, and may do nothing else.
    """

    ADMIN = "admin"
    USER = "user"
    WORKER = "worker"


class DeliveryStatus(StrEnum):
    """What became of a debt to a chat. Moved by the chat platform's poller alone, under its lease."""

    OWED = "owed"
    DELIVERED = "delivered"
    UNDELIVERABLE = "undeliverable"

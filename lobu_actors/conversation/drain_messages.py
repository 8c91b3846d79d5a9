"""What a conversation's actor is told, and wants done, when its host is going away or its agent is not what it was.
Part of `messages`."""

from __future__ import annotations

import msgspec


class DrainRequest(msgspec.Struct, frozen=True):
    """This host is going: begin nothing, hand over what has not finished by `by` (monotonic seconds)."""

    by: float


class BeginAnew(msgspec.Struct, frozen=True):
    """Its agent's configuration changed: what runs goes on as it began, what comes next begins in a new activation."""


class ReleaseLease(msgspec.Struct, frozen=True):
    """Let another host have the conversation, and if it owes something, tell one. Answers LeaseReleased."""

    owes: bool


class LeaseReleased(msgspec.Struct, frozen=True):
    pass

"""What a conversation's actor is told, and wants done, when its host is going away or its agent is not what it was.
Part of `messages`."""

from __future__ import annotations

import attrs


@attrs.frozen
class DrainRequest:
    """This host is going: begin nothing, hand over what has not finished by `by` (monotonic seconds)."""

    by: float


@attrs.frozen
class BeginAnew:
    """Its agent's configuration changed: what runs goes on as it began, what comes next begins in a new activation."""


@attrs.frozen
class ReleaseLease:
    """Let another host have the conversation, and if it owes something, tell one. Answers LeaseReleased."""

    owes: bool


@attrs.frozen
class LeaseReleased:
    pass

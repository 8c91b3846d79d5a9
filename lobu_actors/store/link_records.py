"""What a host says of its links to the others, for who looks at the cluster. Nothing works by it."""

from __future__ import annotations

import msgspec


class PeerLink(msgspec.Struct, frozen=True):
    host_id: str  # the other side's
    up: bool
    lag_seconds: float | None  # the last heartbeat's round trip


class Links(msgspec.Struct, frozen=True):
    """A host's own links to the other live hosts: all counted, of the worst ones what each is like."""

    up: int = 0
    down: int = 0
    worst: tuple[PeerLink, ...] = ()


NO_LINKS = Links()

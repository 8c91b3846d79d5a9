"""A run that may begin with the acceptance of its message."""

from __future__ import annotations

import msgspec

from lobu_actors.store.records import Lease


class NextRun(msgspec.Struct, frozen=True):
    """What the holder of a lease, whose worker waits, will run next if the next message finds nothing else owed."""

    lease: Lease
    run_id: str
    worker_pid: int | None
    worker_started_at: float | None

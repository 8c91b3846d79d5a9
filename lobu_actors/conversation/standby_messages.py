"""What `decide` is told and wants done of a run that began with the acceptance of its message."""

from __future__ import annotations

import msgspec

from lobu_actors.store.records import Turn


class LookAtStandby(msgspec.Struct, frozen=True):
    """An edge has settled what it took. The actor looks before every message, so this only wakes it."""


class StandbyTaken(msgspec.Struct, frozen=True):
    """An edge commits a message now, and maybe its run: begin nothing before `StandbySettled`."""


class StandbySettled(msgspec.Struct, frozen=True):
    """The edge is through. `turn` is in a live run of this id; None: nothing began, or, not `known`, perhaps."""

    run_id: str
    turn: Turn | None
    known: bool


class OpenRun(msgspec.Struct, frozen=True):
    """Lay out the session file of a run that lives already. Answers RunBegun or SessionUnusable."""

    run_id: str
    turns: tuple[Turn, ...]
    attempt: int

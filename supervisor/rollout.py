"""Whether several hosts may share a database, and how a new release gets onto them. Pure: settings in, verdict out."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, get_args

import msgspec

from lobu_actors.contract.states import Alone
from lobu_actors.store.membership_protocol import Rival
from supervisor.config.settings import Settings
from supervisor.config.values import RolloutStrategy

SHOWN_ID = 13  # characters of a host's id: its time to the millisecond, which tells hosts apart
STRATEGIES: tuple[str, ...] = get_args(RolloutStrategy)
Decider = Literal["override", "preconditions"]

STEPS: dict[RolloutStrategy, tuple[str, ...]] = {
    "rolling": (
        "`lobu migrate`, once: hosts of the release before go on working on the new schema",
        "host by host: `lobu drain HOST --wait`, install the new release, start it, wait until `lobu status` shows it",
    ),
    "recreate": (
        "`lobu drain --wait` on the host: it ends, and what it has not finished waits in the database",
        "install the new release, `lobu migrate`",
        "start it: it goes on with what waits",
    ),
}


class Preconditions(msgspec.Struct, frozen=True):
    """What decides whether two hosts may live side by side."""

    allow_multi_host: bool
    file_sessions: bool
    shared_sessions: bool  # session files lie on storage that every host has

    @classmethod
    def of(cls, settings: Settings) -> Preconditions:
        return cls(settings.allow_multi_host, settings.session_store == "file", settings.shared_sessions)

    @property
    def alone(self) -> Alone | None:
        """Why a host of these settings tolerates no other beside it."""
        if not self.allow_multi_host:
            return Alone.NOT_ALLOWED
        return Alone.FILE_SESSIONS if self.file_sessions and not self.shared_sessions else None

    @property
    def sessions(self) -> str:
        if not self.file_sessions:
            return "snapshots in the database"
        return "files on shared storage" if self.shared_sessions else "files on this host's disk"


class Plan(msgspec.Struct, frozen=True):
    strategy: RolloutStrategy
    decided_by: Decider
    because: str
    warning: str | None = None


def plan(override: RolloutStrategy | None, found: Preconditions) -> Plan:
    """An explicit override; else rolling when two hosts may overlap; else recreate."""
    because = _because(found)
    if override is None:
        return Plan("rolling" if found.alone is None else "recreate", "preconditions", because)
    warning = None
    if override == "rolling" and found.alone is not None:
        warning = f"the second host will be refused at its start, since {because}"
    return Plan(override, "override", f"{override} was asked for", warning)


def _because(found: Preconditions) -> str:
    match found.alone:
        case Alone.NOT_ALLOWED:
            return "LOBU_ALLOW_MULTI_HOST is not set"
        case Alone.FILE_SESSIONS:
            return "LOBU_SESSION_STORE=file keeps sessions on one host's disk, where no other host finds them"
        case _:
            where = "on shared storage" if found.file_sessions else "in snapshots"
            return f"LOBU_ALLOW_MULTI_HOST is set and sessions are {where}"


def refusal(alone: Alone | None, rival: Rival, now: datetime) -> str:
    """Why a host may not start beside `rival`, in one sentence. `alone`: its own reason, None if the rival has one."""
    since = now - timedelta(seconds=rival.age_seconds)
    name = f"{rival.name} ({rival.host_id[:SHOWN_ID]})"
    who = f"host {name} has been alive on this database since {since:%Y-%m-%d %H:%M:%S %Z}"
    gone = f"if it is gone already, its lease ends in {max(1, round(rival.expires_in_seconds))} s"
    match alone or rival.alone:
        case Alone.FILE_SESSIONS:
            whose = "this host's" if alone else "its"
            return (
                f"{who}, and LOBU_SESSION_STORE=file keeps {whose} sessions on {whose} own disk, where no other host "
                "finds them: keep them in snapshots, or on shared storage with LOBU_SHARED_SESSIONS=1, or stop that "
                f"host first ({gone})."
            )
        case _:
            lacks = "LOBU_ALLOW_MULTI_HOST is not set here" if alone else "it was started without LOBU_ALLOW_MULTI_HOST"
            return f"{who}, and {lacks}: stop that host first, or set LOBU_ALLOW_MULTI_HOST=1 for both ({gone})."

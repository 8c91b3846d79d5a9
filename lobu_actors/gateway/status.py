"""What a supervisor tells of itself when somebody looks: its tree, actors, workers, running turns, how it went lately.

Shapes only, as they travel over a link and to a page. Made when it is asked for and not before; what names a
conversation is of one organization only, the one that was asked about.
"""

from __future__ import annotations

import msgspec


class Node(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    kind: str
    state: str
    restarts: int = 0
    children: tuple[Node, ...] = ()


class ActorStatus(msgspec.Struct, frozen=True, rename="camel"):
    conversation_id: str
    waiting: int  # messages in its mailbox
    running: bool


class WorkerStatus(msgspec.Struct, frozen=True, rename="camel"):
    worker_id: str
    worker: str  # the name of its type
    pid: int | None
    conversation_id: str
    state: str
    age_seconds: float
    memory_bytes: int | None  # resident; None: not known, or gone meanwhile
    machine: str | None = None  # the other one that it is on, as that calls itself; "": on none yet


class Clock(msgspec.Struct, frozen=True, rename="camel"):
    """`code` is what the turn ends with when it runs out."""

    code: str
    left_seconds: float


class RunningTurn(msgspec.Struct, frozen=True, rename="camel"):
    conversation_id: str
    turn_id: str
    message_id: str
    joined: int  # further turns in the same run
    attempt: int
    phase: str
    age_seconds: float
    text_length: int
    doing: str | None  # the tool, or that it waits for an answer
    clocks: tuple[Clock, ...]


class FailedTurn(msgspec.Struct, frozen=True, rename="camel"):
    conversation_id: str
    turn_id: str
    message_id: str
    code: str
    at_ms: int


class Latencies(msgspec.Struct, frozen=True, rename="camel"):
    """Of the last minutes: for each slot that had any, when it began (epoch seconds) and (bucket, how many).

    Bucket b holds what took from 2^(b/4) to 2^((b+1)/4) microseconds.
    """

    slot_seconds: int
    slots: tuple[tuple[int, tuple[tuple[int, int], ...]], ...] = ()


class HostStatus(msgspec.Struct, frozen=True, rename="camel"):
    host_id: str
    name: str
    draining: bool
    frozen: bool  # it may not work: it does not know whether its lease is still its own
    active_actors: int
    running: int
    workers_in_all: int
    idle_workers: int
    tree: Node
    terminal: Latencies
    crash: Latencies
    actors: tuple[ActorStatus, ...] = ()
    workers: tuple[WorkerStatus, ...] = ()
    turns: tuple[RunningTurn, ...] = ()
    failures: tuple[FailedTurn, ...] = ()  # newest first
    idle_places: int = 0  # of remote workers, for the organization that was asked about

"""What is told of one worker to people who look. Knows neither processes nor links."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Protocol, TypeVar

import msgspec

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.worker_port import WorkerRequest


class Asked(Protocol):
    """A worker that was asked for, here or elsewhere."""

    @property
    def request(self) -> WorkerRequest: ...

    @property
    def state(self) -> str: ...


W = TypeVar("W", bound=Asked)


class WorkerInfo(msgspec.Struct, frozen=True):
    """`state` is waiting (for a place), starting or ready, of a remote worker also cut. `age_seconds` counts from the
    asking."""

    worker_id: str
    worker: str  # the name of its type
    pid: int | None
    ref: ConversationRef
    age_seconds: float
    state: str
    machine: str | None = None  # see `WorkerStatus`


def oldest(
    workers: Iterable[W], organization_id: str, most: int, info: Callable[[W, float], WorkerInfo]
) -> list[WorkerInfo]:
    """One organization's that are not gone, in the order in which they come; `info` gets the time, too."""
    now = time.monotonic()
    own = (
        worker for worker in workers if worker.request.ref.organization_id == organization_id and worker.state != "gone"
    )
    return [info(worker, now) for worker in islice(own, most)]

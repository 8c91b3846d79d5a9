"""What is told of one worker to people who look. Knows neither processes nor links."""

from __future__ import annotations

import attrs

from lobu_actors.contract.ids import ConversationRef


@attrs.frozen
class WorkerInfo:
    """`state` is starting or ready, of a remote worker also waiting or cut; `age_seconds` counts from the asking."""

    worker_id: str
    worker: str  # the name of its type
    pid: int | None
    ref: ConversationRef
    age_seconds: float
    state: str
    machine: str | None = None  # see `WorkerStatus`

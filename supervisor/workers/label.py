"""What the next supervisor of this host must know of a worker to go on with it. Kept by the spawner, beside the worker.

Owns the form. A label of another version that cannot be read costs the worker, whose turn then follows its policy.
"""

from __future__ import annotations

import msgspec

from lobu_actors.contract.ids import ConversationRef


class Label(msgspec.Struct, frozen=True):
    """`capabilities` is None before the handshake is done. `mid_frame`: a frame was sent to it in part only."""

    ref: ConversationRef
    worker: str
    token: str
    capabilities: tuple[str, ...] | None = None
    mid_frame: bool = False

    @property
    def can_go_on(self) -> bool:
        """Whether another supervisor may talk to the worker."""
        return self.capabilities is not None and not self.mid_frame


def encode(label: Label) -> str:
    return msgspec.json.encode(label).decode()


def decode(text: str) -> Label | None:
    """None when it is no label of this version."""
    try:
        return msgspec.json.decode(text, type=Label)
    except msgspec.DecodeError:
        return None

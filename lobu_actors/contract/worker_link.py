"""The link of a worker on another machine: what travels beside the frames, and the count that loses nothing. Pure.

Frames of the worker protocol are text messages as they are. Beside them go the messages here, whose types begin with
`link.`. `Join`, `Joined` and `Received` belong to one connection. All others, and all frames, belong to the worker:
each side counts them from the worker's `hello` on, keeps what the other has not said to have received, and sends it
again over the next connection.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import deque
from typing import Any, ClassVar, Literal

import msgspec

from lobu_actors.contract.frames import MAX_LINE_BYTES

LINK_VERSION = 1
PATH = "/worker/link"
MAX_MESSAGE_BYTES = MAX_LINE_BYTES + 1024
PIECE_BYTES = 256 * 1024
# Close codes. Those from 4400 on are answers: to come again with the same is no use.
REFUSED = 4400
UNKNOWN_WORKER = 4410
NOBODY_THERE = 1013

_PREFIX = "link."

Place = Literal["session", "input", "output"]


class LinkError(ValueError):
    """The other side sent what it must not. The sentence is for its log."""


class LinkMessage(msgspec.Struct, frozen=True):
    """Named by its TYPE on the wire; field names are the wire's. Unknown fields are ignored."""

    TYPE: ClassVar[str]
    COUNTED: ClassVar[bool] = True


class Join(LinkMessage, frozen=True):
    """The runner's first message. `resume`: the worker that it has, and what it has `received` of it."""

    TYPE: ClassVar[str] = "join"
    COUNTED: ClassVar[bool] = False
    worker: str
    version: int
    protocol: int
    name: str = ""
    resume: str = ""
    host: str = ""
    received: int = 0


class Joined(LinkMessage, frozen=True):
    """A host has taken the place, or has its worker again. The frames follow."""

    TYPE: ClassVar[str] = "joined"
    COUNTED: ClassVar[bool] = False
    host: str
    worker: str
    grace: float
    received: int = 0


class Received(LinkMessage, frozen=True):
    """How much of the worker's was received; also the sign of life of a link on which nothing else happens."""

    TYPE: ClassVar[str] = "received"
    COUNTED: ClassVar[bool] = False
    received: int


class Prepare(LinkMessage, frozen=True):
    """A turn is about to come: empty its folders. `session`: there is `none`, it `follows`, or it is the `same`."""

    TYPE: ClassVar[str] = "prepare"
    session: str


class Piece(LinkMessage, frozen=True):
    """Of a file. `absent`: a session file that is not there. `unfit`: why it cannot be carried."""

    TYPE: ClassVar[str] = "piece"
    place: str
    name: str
    offset: int
    data: str  # base64
    last: bool
    absent: bool = False
    unfit: str = ""

    @classmethod
    def of(cls, place: Place, name: str, offset: int, data: bytes, *, last: bool) -> Piece:
        return cls(place, name, offset, b64encode(data).decode(), last)

    @property
    def content(self) -> bytes:
        """Raises LinkError."""
        try:
            return b64decode(self.data, validate=True)
        except ValueError:
            raise LinkError("a piece of a file that is not base64") from None


class Kill(LinkMessage, frozen=True):
    """End the worker and its whole tree now."""

    TYPE: ClassVar[str] = "kill"


class Ended(LinkMessage, frozen=True):
    """The worker is gone; its last message. Fields as those of the port's `WorkerGone`."""

    TYPE: ClassVar[str] = "ended"
    reason: str
    detail: str
    exitCode: int | None = None
    signal: int | None = None


_KINDS: dict[str, type[LinkMessage]] = {
    kind.TYPE: kind for kind in (Join, Joined, Received, Prepare, Piece, Kill, Ended)
}
_CHECKS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "int | None": (int, type(None)),
}


def encode(message: LinkMessage) -> str:
    wire = {name: getattr(message, name) for name in message.__struct_fields__}
    return json.dumps({"type": _PREFIX + message.TYPE, **wire}, separators=(",", ":"))


def decode(text: str) -> LinkMessage | None:
    """None: a frame of the worker protocol, or what only a later version knows. Raises LinkError."""
    if f'"{_PREFIX}' not in text:
        return None
    try:
        wire = json.loads(text)
    except (ValueError, RecursionError):
        return None  # whoever reads frames says what is wrong with it
    name = wire.pop("type", None) if isinstance(wire, dict) else None
    if not isinstance(name, str) or not name.startswith(_PREFIX):
        return None
    kind = _KINDS.get(name.removeprefix(_PREFIX))
    if kind is None:
        raise LinkError(f"{name!r}, which is no message of this version's link")
    values: dict[str, Any] = {}
    for field in kind.__struct_fields__:
        if field in wire:
            value, types = wire[field], _CHECKS[kind.__annotations__[field]]
            if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
                raise LinkError(f"`{field}` of {name} has the wrong type")
            values[field] = value
    try:
        return kind(**values)
    except TypeError:
        raise LinkError(f"{name} lacks a field") from None


def is_counted(message: LinkMessage | None) -> bool:
    return message is None or message.COUNTED


class Outbox:
    """What is to be sent to one worker's other side, from its first counted message on."""

    def __init__(self) -> None:
        self._kept: deque[str] = deque()
        self._acknowledged = 0  # that many are gone from `_kept`
        self._sent = 0  # of those in `_kept`
        self.pending_bytes = 0

    def put(self, text: str) -> None:
        self._kept.append(text)
        self.pending_bytes += len(text)

    def next(self) -> str | None:
        """The next one to send over the present connection; None: all were sent."""
        if self._sent == len(self._kept):
            return None
        self._sent += 1
        return self._kept[self._sent - 1]

    def received(self, number: int) -> None:
        """The other side has so many. Raises LinkError when it cannot."""
        if not self._acknowledged <= number <= self._acknowledged + self._sent:
            raise LinkError(f"it says that it received {number} messages, which cannot be")
        while self._acknowledged < number:
            self.pending_bytes -= len(self._kept.popleft())
            self._acknowledged += 1
            self._sent -= 1

    def resume(self, number: int) -> None:
        """A new connection, whose other side has so many: the rest is sent again. Raises LinkError."""
        self.received(number)
        self._sent = 0

    @property
    def empty(self) -> bool:
        """All of it was received."""
        return not self._kept

"""What travels over a link: messages as JSON text frames, their versions and limits. Pure.

The side that connects (client) asks; the side that is connected to (server) answers, and tells what the conversations
do that the client follows. A follow is a number that the client gives to one conversation for one connection.

Versions: the client opens with `Hello` and the range that it speaks, the server takes the highest common one and says
so in `Welcome`, or closes with a sentence. Within one version messages may get new optional fields: unknown ones are
ignored.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from lobu_actors.contract.events import Data, EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.status import HostStatus
from lobu_actors.store.records import Event

VERSIONS = (1, 1)  # the lowest and the highest that this program speaks
PATH = "/lobu/link"
WORKER_PATH = "/lobu/worker"  # beside it: one remote worker's link, see `worker_pipe`
MAX_FRAME_CHARS = 1 << 20
MAX_EVENT_BYTES = 256 << 10  # a longer one is not told: its reader is sent to the log
TEXT_CHARS = 64 << 10  # of one piece of text
FILE_BYTES = 256 << 10  # of one piece of a session file
FOLLOWS_AT_ONCE = 500  # in one message


class WireError(Exception):
    """The other side sent what it must not. The link is of no use any more."""


class Message(msgspec.Struct, frozen=True, tag_field="is"):
    """Named by its class."""


# --- from the client


class Hello(Message, frozen=True, tag="hello"):
    lowest: int
    highest: int


class Follow(Message, frozen=True, tag="follow"):
    """Tell what these conversations do, whenever this host owns them; and no more of those that are dropped."""

    add: tuple[tuple[int, ConversationRef], ...] = ()
    drop: tuple[int, ...] = ()


class Hint(Message, frozen=True, tag="hint"):
    """A turn was committed; its contents are in the store. Without a message: something is owed."""

    ref: ConversationRef
    message_id: str | None


class Answered(Message, frozen=True, tag="answered"):
    ref: ConversationRef
    question_id: str
    answer: str


Method = Literal["cancel", "close", "status", "session", "purge"]


# Of a `status`, which an older host answers of the conversation: of the whole host, for an organization; and, with a
# worker type behind it, to have a conversation at rest give up its place of a runner. `HELD`: some have such places.
LOOK, PLACE, HELD = "look", "place:", "held"


class Call(Message, frozen=True, tag="call"):
    """Answered by one `Reply`, of a session file behind any number of `Piece`s. `argument`: of `cancel` the message, of
    `purge` the run, of `status` nothing, `LOOK` or `PLACE`."""

    call_id: int
    method: Method
    ref: ConversationRef
    argument: str | None = None


# --- from the server


class Welcome(Message, frozen=True, tag="welcome"):
    version: int
    proof: str  # a host token for the client, with the nonce of its own


class State(Message, frozen=True, tag="state"):
    draining: bool


class Text(msgspec.Struct, frozen=True):
    """A text that begins here, with as much of it as `content` says; the rest is appended, to `length` at once."""

    message_id: str
    attempt: int
    start_seq: int
    content: str
    length: int


class Live(Message, frozen=True, tag="live"):
    """This host owns it. Replaces all that was told of the follow before; the log has events up to `last_seq`."""

    follow: int
    epoch: int
    last_seq: int
    text: Text | None = None


class Elsewhere(Message, frozen=True, tag="elsewhere"):
    """This host does not own these (any more)."""

    follows: tuple[int, ...]


class Begun(Message, frozen=True, tag="begun"):
    follow: int
    text: Text


class Appended(Message, frozen=True, tag="appended"):
    """`offset` is where `content` begins, in code points: the length of the text before it."""

    follow: int
    offset: int
    content: str


class TextEnded(Message, frozen=True, tag="text-ended"):
    follow: int


class Transient(Message, frozen=True, tag="transient"):
    follow: int
    type: EventType
    data: Data


class Durable(Message, frozen=True, tag="durable"):
    """A committed event, at its place in the text."""

    follow: int
    seq: int
    type: EventType
    data: Data
    turn_id: str | None = None
    run_id: str | None = None
    attempt: int | None = None
    text_offset: int | None = None

    @classmethod
    def of(cls, follow: int, event: Event) -> Durable:
        return cls(
            follow,
            event.seq,
            event.type,
            event.data,
            event.turn_id,
            event.run_id,
            event.attempt,
            event.text_offset,
        )

    def event(self, ref: ConversationRef) -> Event:
        return Event(
            ref, self.seq, self.turn_id, self.type, self.data, self.run_id, self.attempt, self.text_offset
        )  # fmt: skip


class InLog(Message, frozen=True, tag="in-log"):
    """The log has events up to `seq`; the newest is too long to be told."""

    follow: int
    seq: int


class Owner(Message, frozen=True, tag="owner"):
    """As far as this host knows."""

    ref: ConversationRef
    host_id: str


class Piece(Message, frozen=True, tag="piece"):
    call_id: int
    data: bytes


class Status(msgspec.Struct, frozen=True):
    active: bool
    queued: int
    running: int
    streams: int


class Reply(Message, frozen=True, tag="reply"):
    """`done` False: it could not be asked, here or in time."""

    call_id: int
    done: bool
    value: str | None = None  # of `cancel` and `PLACE`
    number: int | None = None  # of `purge`: deleted pieces; of `session`: bytes
    status: Status | None = None
    host: HostStatus | None = None


ClientMessage = Hello | Follow | Hint | Answered | Call
ServerMessage = (
    Welcome
    | State
    | Live
    | Elsewhere
    | Begun
    | Appended
    | TextEnded
    | Transient
    | Durable
    | InLog
    | Owner
    | Piece
    | Reply
)

_M = TypeVar("_M")
_FROM_CLIENT: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)
_FROM_SERVER: msgspec.json.Decoder[ServerMessage] = msgspec.json.Decoder(ServerMessage)


def encode(message: Message) -> str:
    """One frame. Raises WireError for what cannot travel: too long, or not text (half a surrogate pair)."""
    try:
        frame = msgspec.json.encode(message)
    except (ValueError, TypeError, RecursionError) as error:
        raise WireError(f"{type(message).__name__} cannot be encoded: {error}") from None
    if len(frame) > MAX_FRAME_CHARS:
        raise WireError(f"{type(message).__name__} is longer than {MAX_FRAME_CHARS} bytes")
    return frame.decode()


def from_client(frame: str | bytes) -> ClientMessage:
    """Raises WireError."""
    return _decoded(frame, _FROM_CLIENT)


def from_server(frame: str | bytes) -> ServerMessage:
    """Raises WireError."""
    return _decoded(frame, _FROM_SERVER)


def _decoded(frame: str | bytes, decoder: msgspec.json.Decoder[_M]) -> _M:
    if not isinstance(frame, str):
        raise WireError("a binary frame")
    try:
        return decoder.decode(frame)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise WireError(f"not a message: {error}") from None


def common_version(hello: Hello) -> int | None:
    """The highest version that both sides speak; None: there is none."""
    highest = min(hello.highest, VERSIONS[1])
    return highest if highest >= max(hello.lowest, VERSIONS[0]) else None

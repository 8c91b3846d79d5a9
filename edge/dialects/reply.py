"""What one turn's events mean to a client that shows one reply: pure, shared by every dialect.

The event stream can say `restart`: forget this message's output so far. Most dialects cannot. So this keeps track of
what was shown, by length and hash alone, and lets an attempt that begins anew go on where the first one stopped as long
as it says the same; when it says something else, the reply has failed for this client, which is told so. What was
shown in the end is therefore always the reply's true text, or it is followed by a failure.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from lobu_actors.contract.events import Data, EventType
from lobu_actors.gateway.feed import Outgoing

RESTARTED = "REPLY_RESTARTED"
RECONNECT = "SERVER_RESTARTING"
CLOSED = "CONVERSATION_CLOSED"
CANCELLED = "CANCELLED"


class Said(msgspec.Struct, frozen=True):
    """More of the reply."""

    text: str


class Anew(msgspec.Struct, frozen=True):
    """Forget what was said so far. Only for dialects that can."""


class Doing(msgspec.Struct, frozen=True):
    status: str
    phase: str | None


class Remark(msgspec.Struct, frozen=True):
    content: str


class Asked(msgspec.Struct, frozen=True):
    """The worker waits for a person's answer."""

    question_id: str
    prompt: str
    options: list[str] | None


class Answered(msgspec.Struct, frozen=True):
    question_id: str
    answer: str


class Completed(msgspec.Struct, frozen=True):
    """All of the reply was said."""

    usage: Data | None = None
    tool_calls: tuple[Data, ...] = ()  # `{id, name, arguments}` that the client is to carry out
    files: tuple[Data, ...] = ()


class Failed(msgspec.Struct, frozen=True):
    """`settled`: so ended the turn. Otherwise it goes on, and only this client is told no more of it."""

    code: str
    message: str
    settled: bool = True


class Cancelled(msgspec.Struct, frozen=True):
    pass


Step = Said | Anew | Doing | Remark | Asked | Answered | Completed | Failed | Cancelled
ENDS = (Completed, Failed, Cancelled)


class Reply:
    """The reply to one message. `before`: so many code points of it were shown by an earlier response already."""

    def __init__(self, message_id: str, *, can_forget: bool, before: int = 0) -> None:
        self._message_id = message_id
        self._can_forget = can_forget
        self._before = before
        self._shown = _Text()
        self._again: _Text | None = None  # an attempt that begins anew, as far as it says what was shown
        self._asked: set[str] = set()
        self._over = False

    @property
    def lacks_shown(self) -> bool:
        """The attempt that goes on has not said yet what an earlier one showed."""
        return self._again is not None

    def take(self, outgoing: Outgoing) -> list[Step]:
        """What follows from the next event of the conversation; nothing behind an end."""
        if self._over:
            return []
        steps = self._steps(outgoing)
        for index, step in enumerate(steps):
            if isinstance(step, ENDS):
                self._over = True
                return steps[: index + 1]
        return steps

    def _steps(self, outgoing: Outgoing) -> list[Step]:
        data = outgoing.data
        match outgoing.type:
            case EventType.DRAIN:
                return [Failed(RECONNECT, "The server restarts; the reply goes on without this request.", False)]
            case EventType.CLOSED:
                return [Failed(CLOSED, "The conversation was ended.")]
            case EventType.QUESTION_ANSWERED if data["questionId"] in self._asked:
                return [Answered(data["questionId"], data["answer"])]
        if data.get("messageId") != self._message_id:
            return []
        return self._own(outgoing.type, data)

    def _own(self, kind: EventType, data: Data) -> list[Step]:
        match kind:
            case EventType.OUTPUT:
                return self._say(data["content"])
            case EventType.RESTART:
                return self._restart()
            case EventType.STATUS:
                return [Doing(data["status"], data.get("phase"))]
            case EventType.EPHEMERAL:
                return [Remark(data["content"])]
            case EventType.QUESTION:
                self._asked.add(data["questionId"])
                return [Asked(data["questionId"], data["prompt"], data.get("options"))]
            case EventType.COMPLETE:
                return self._complete(data)
            case EventType.AGENT_ERROR:
                return [Failed(data["errorCode"], data["error"])]
            case EventType.CANCELLED:
                return [Cancelled()]
        return []

    def _say(self, text: str) -> list[Step]:
        if self._again is not None:
            lacking = self._shown.length - self._again.length
            self._again.add(text[:lacking])
            text = text[lacking:]
            if self._again.length < self._shown.length:
                return []
            if self._again != self._shown:
                return [restarted()]
            self._again = None
        self._shown.add(text)
        return [Said(text)] if text else []

    def _restart(self) -> list[Step]:
        self._again = None
        if not self._shown.length:
            self._before = 0  # all of it is to be said now
            return []
        if self._can_forget:
            self._shown, self._before = _Text(), 0
            return [Anew()]
        if self._before:
            return [restarted()]
        self._again = _Text()
        return []

    def _complete(self, data: Data) -> list[Step]:
        text: str = data["finalText"]
        end = Completed(data.get("usage"), tuple(data.get("toolCalls") or ()), tuple(data.get("files") or ()))
        shown = self._shown.length
        if len(text) >= self._before + shown and self._shown == _Text(text[self._before : self._before + shown]):
            rest = text[self._before + shown :]
            return [Said(rest), end] if rest else [end]
        if self._can_forget:
            return [Anew(), Said(text), end] if text else [Anew(), end]
        return [restarted(settled=True)]


class _Text:
    """A text of which only length and hash are kept."""

    def __init__(self, text: str = "") -> None:
        self.length = 0
        self._hash = hashlib.sha256()
        self.add(text)

    def add(self, text: str) -> None:
        self.length += len(text)
        self._hash.update(text.encode("utf-8", "surrogatepass"))

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Text) and self._hash.digest() == other._hash.digest()

    __hash__ = None  # type: ignore[assignment]


def restarted(*, settled: bool = False) -> Failed:
    sentence = "The reply was begun again and says something else than what was shown here; ask for it again."
    return Failed(RESTARTED, sentence, settled)

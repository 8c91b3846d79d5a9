"""What every dialect's encoder has: bytes out of the events of one turn, with exactly one end. Pure.

Must not know routes, stores, or how a connection is written.
"""

from __future__ import annotations

from typing import Any

import msgspec

from edge import sse
from edge.dialects.reply import ENDS, Answered, Asked, Completed, Doing, Failed, Remark, Reply, Said, Step, restarted
from lobu_actors.gateway.feed import Outgoing

Json = dict[str, Any]
NO_END = "STREAM_ENDED"
ASKED = "QUESTION_ASKED"


class Head(msgspec.Struct, frozen=True):
    """What a response says of itself, whatever its dialect."""

    message_id: str
    turn_id: str
    agent_id: str
    conversation_id: str
    created_ms: int
    before: int = 0  # code points of the reply that an earlier response showed
    may_ask: bool = True  # who reads this can answer a question by its next request

    @property
    def name(self) -> str:
        """Of the response: one turn may take several, with a question in between."""
        return f"{self.turn_id}-{self.before}" if self.before else self.turn_id


class Encoder:
    """One turn for one client. `ended`: the dialect's end was written, nothing may follow. `settled`: who goes away now
    leaves nothing undone: the turn ended, or waits for its answer, or it is the server that lost it."""

    ping = sse.PING
    can_forget = False
    question_ends = True  # a question is the end of the response; the next request may bring the answer

    def __init__(self, head: Head) -> None:
        self.head = head
        self.ended = False
        self.settled = False
        self._reply = Reply(head.message_id, can_forget=self.can_forget, before=head.before)

    def begin(self) -> bytes:
        """The first bytes, when the turn is accepted."""
        raise NotImplementedError

    def event(self, outgoing: Outgoing) -> bytes:
        """The bytes of the next event; none for what the dialect does not tell, and none behind the end."""
        return b"".join(self._take(step) for step in self._reply.take(outgoing))

    def fail(self, code: str, sentence: str) -> bytes:
        """End the response because nothing more can be told of the turn, which goes on if it can."""
        return self._take(Failed(code, sentence))

    def _take(self, step: Step) -> bytes:
        if self.ended:
            return b""
        if isinstance(step, Asked) and self.question_ends:
            step = self._last(step)
            self.ended = self.settled = True
        if isinstance(step, ENDS):
            self.ended = True
            self.settled = not isinstance(step, Failed) or step.settled
        return self.step(step)

    def _last(self, asked: Asked) -> Asked | Failed:
        """A question that ends the response, unless the client could not go on from there."""
        if self._reply.lacks_shown:
            return restarted()
        if not self.head.may_ask:
            sentence = f"The agent asks a question, which this request cannot answer: {asked.prompt}"
            return Failed(ASKED, sentence, settled=False)
        return asked

    def step(self, step: Step) -> bytes:
        """One step in the dialect's words."""
        raise NotImplementedError


class Collector(Encoder):
    """For answers in one piece: writes nothing, and keeps what there is to say."""

    ping = b""
    can_forget = True

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        self._said: list[str] = []
        self.end: Step = Failed(NO_END, "The reply's end was not told.", settled=False)

    @property
    def text(self) -> str:
        return "".join(self._said)

    def begin(self) -> bytes:
        return b""

    def step(self, step: Step) -> bytes:
        match step:
            case Said(text):
                self._said.append(text)
            case Asked() | Completed() | Failed():
                self.end = step
            case Doing() | Remark() | Answered():
                pass
            case _ if isinstance(step, ENDS):
                self.end = step
            case _:
                self._said.clear()
        return b""


def question_text(asked: Asked, *, behind_text: bool) -> str:
    """A question for clients that know only text."""
    options = "".join(f"\n- {option}" for option in asked.options or ())
    return ("\n\n" if behind_text else "") + asked.prompt + options


def usage_numbers(usage: Json | None) -> tuple[int, int, int]:
    """Tokens of input, output and both, by the names that workers use; 0 for what was not told."""
    usage = usage or {}

    def first(*names: str) -> int:
        for name in names:
            value = usage.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return int(value)
        return 0

    sent = first("inputTokens", "input_tokens", "promptTokens", "prompt_tokens", "input")
    got = first("outputTokens", "output_tokens", "completionTokens", "completion_tokens", "output")
    return sent, got, first("totalTokens", "total_tokens", "total") or sent + got

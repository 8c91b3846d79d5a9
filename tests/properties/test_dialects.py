"""Any life of a turn, in every dialect: a well-formed stream with exactly one end, and no success with a wrong text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edge.dialects.ag_ui import AgUiStream
from edge.dialects.encoder import Collector, Encoder, Head
from edge.dialects.openai_chat import ChatStream, chat_completion
from edge.dialects.openai_responses import ResponseStream, response_object
from edge.dialects.reply import Completed
from edge.dialects.ui_stream import UiStream
from lobu_actors.contract import events
from lobu_actors.contract.events import Data, EventType
from lobu_actors.gateway.feed import Outgoing
from tests.fakes.dialect_readers import READERS, Outcome

MINE = "m1"
NOW = 1_700_000_000_000
HEAD = Head(MINE, "turn-1", "echo", "echo_ann_acme", NOW)
ENCODERS: dict[str, Callable[[], Encoder]] = {
    "chat": lambda: ChatStream(HEAD, with_usage=False),
    "responses": lambda: ResponseStream(HEAD, {}),
    "ui": lambda: UiStream(HEAD, "http://x/questions/{}/answer"),
    "ag-ui": lambda: AgUiStream(HEAD, "thread", "run", [{"id": "u", "role": "user", "content": "hi"}]),
}
PIECES = st.lists(st.sampled_from(["a", "b", "ab", "é\n\n", "😀", "data: x\n\n", "\u2028"]), max_size=6)


@attrs.frozen
class Life:
    """What happened to the message, attempt by attempt, and how it ended; `asks`: a question in the last attempt."""

    attempts: list[list[str]]
    end: str  # complete, longer, other, error, cancelled, drain, closed, nothing
    asks: bool
    noise: list[int]

    @property
    def final(self) -> str:
        text = "".join(self.attempts[-1])
        return {"longer": text + "more", "other": "other"}.get(self.end, text)

    def outgoing(self) -> list[Outgoing]:
        out: list[Outgoing] = []

        def add(kind: EventType, data: Data) -> None:
            if len(out) in self.noise:
                out.append(Outgoing(EventType.OUTPUT, events.output("another's", "m2", NOW), None))
                out.append(Outgoing(EventType.COMPLETE, events.complete("m2", ["m2"], "another's", None, NOW), None))
                out.append(Outgoing(EventType.STATUS, events.status("busy", "tool", MINE, NOW), None))
            out.append(Outgoing(kind, data, None))

        for number, pieces in enumerate(self.attempts, 1):
            if number > 1:
                add(EventType.RESTART, events.restart(MINE, number, "retry"))
            for piece in pieces:
                add(EventType.OUTPUT, events.output(piece, MINE, NOW))
        if self.asks:
            add(EventType.QUESTION, events.question("q1", "go on?", ["yes", "no"], MINE))
            add(EventType.QUESTION_ANSWERED, events.question_answered("q1", "yes"))
        match self.end:
            case "complete" | "longer" | "other":
                add(EventType.COMPLETE, events.complete(MINE, [MINE], self.final, {"inputTokens": 3}, NOW))
            case "error":
                add(EventType.AGENT_ERROR, events.agent_error(MINE, [MINE], "WORKER_CRASHED", "crashed", None, NOW))
            case "cancelled":
                add(EventType.CANCELLED, events.cancelled(MINE, [MINE], self.final, NOW))
            case "drain":
                add(EventType.DRAIN, events.drain(100))
            case "closed":
                add(EventType.CLOSED, events.closed("deleted"))
        # What may still come of others, and what can come of none: nobody may be shown anything of it.
        add(EventType.OUTPUT, events.output("behind the end", MINE, NOW) if self.end != "nothing" else _others())
        return out


def _others() -> Data:
    return events.output("another's", "m2", NOW)


LIVES = st.builds(
    Life,
    attempts=st.lists(PIECES, min_size=1, max_size=4),
    end=st.sampled_from(["complete", "longer", "other", "error", "cancelled", "drain", "closed", "nothing"]),
    asks=st.booleans(),
    noise=st.lists(st.integers(0, 20), max_size=3),
)


def encoded(encoder: Encoder, life: Life) -> bytes:
    raw = encoder.begin() + b"".join(encoder.event(outgoing) for outgoing in life.outgoing())
    if not encoder.ended:
        raw += encoder.fail("STREAM_BROKEN", "Broken.")
    assert encoder.ended
    assert encoder.event(Outgoing(EventType.DRAIN, events.drain(1), None)) == b""
    assert encoder.fail("AGAIN", "Again.") == b""
    return raw


def diverges(life: Life) -> bool:
    """Whether something was shown that is no beginning of the true text, to a client that cannot forget."""
    shown = ""
    for pieces in life.attempts:
        text = "".join(pieces)
        if text[: len(shown)] != shown[: len(text)]:
            return True
        if len(text) >= len(shown):
            shown = text
    return life.end in ("complete", "longer", "other") and not life.final.startswith(shown)


@pytest.mark.parametrize("dialect", ENCODERS)
@settings(max_examples=400, deadline=None)
@given(life=LIVES)
def test_every_stream_is_well_formed_and_says_the_truth(dialect: str, life: Life) -> None:
    encoder = ENCODERS[dialect]()
    outcome = READERS[dialect](encoded(encoder, life))
    # A question is told when all that was shown is part of the reply that goes on.
    ends_with_question = life.asks and dialect != "ui"
    wrong = dialect != "ag-ui" and diverges(attrs.evolve(life, end="complete") if ends_with_question else life)
    if wrong and outcome.code == "REPLY_RESTARTED":
        assert outcome.end == "error"
    elif ends_with_question:
        check_question(dialect, life, outcome)
    elif life.end in ("complete", "longer", "other"):
        assert (outcome.end, outcome.text) == ("complete", life.final)
    elif life.end == "cancelled" and dialect in ("ui", "ag-ui"):
        assert outcome.end == "cancelled"
    else:
        codes = {"error": "WORKER_CRASHED", "cancelled": "CANCELLED", "closed": "CONVERSATION_CLOSED"}
        codes |= {"drain": "SERVER_RESTARTING", "nothing": "STREAM_BROKEN"}
        assert (outcome.end, outcome.code) == ("error", codes[life.end])
    assert encoder.settled or outcome.code in ("REPLY_RESTARTED", "SERVER_RESTARTING")
    assert "another's" not in outcome.text
    assert "behind" not in outcome.text


def check_question(dialect: str, life: Life, outcome: Outcome) -> None:
    """The response ends with it; what a client of text is shown is the text so far, and the question."""
    if dialect == "ag-ui":
        assert (outcome.end, outcome.text) == ("question", "".join(life.attempts[-1]))
        assert outcome.parts[-1]["id"] == "q1"
        return
    assert outcome.end == "complete"
    assert outcome.text.endswith("go on?\n- yes\n- no")


@settings(max_examples=300, deadline=None)
@given(life=LIVES)
def test_an_answer_in_one_piece_is_the_final_text_or_a_failure(life: Life) -> None:
    collector = Collector(HEAD)
    assert encoded(collector, attrs.evolve(life, asks=False)) == b""
    if life.end in ("complete", "longer", "other"):
        assert isinstance(collector.end, Completed)
        assert chat_completion(HEAD, collector)["choices"][0]["message"]["content"] == life.final
        [item] = response_object(HEAD, {}, collector)["output"]
        assert item["content"][0]["text"] == life.final
    else:
        assert not isinstance(collector.end, Completed)


CALLS: list[dict[str, Any]] = [{"id": "c1", "name": "look", "arguments": '{"where": "here"}'}]


@pytest.mark.parametrize("dialect", ENCODERS)
@pytest.mark.parametrize("text", ["", "First I look."])
def test_calls_that_the_client_is_to_carry_out(dialect: str, text: str) -> None:
    encoder = ENCODERS[dialect]()
    data = events.complete(MINE, [MINE], text, None, NOW) | {"toolCalls": CALLS}
    outcome = READERS[dialect](encoder.begin() + encoder.event(Outgoing(EventType.COMPLETE, data, None)))
    assert (outcome.end, outcome.text, outcome.calls) == ("complete", text, [("c1", "look", '{"where": "here"}')])


def test_a_question_that_cannot_be_answered_by_this_client_is_a_failure() -> None:
    encoder = ChatStream(replace(HEAD, may_ask=False), with_usage=False)
    asked = Outgoing(EventType.QUESTION, events.question("q1", "go on?", None, MINE), None)
    outcome = READERS["chat"](encoder.begin() + encoder.event(asked))
    assert (outcome.end, outcome.code, outcome.text, encoder.settled) == ("error", "QUESTION_ASKED", "", False)


@pytest.mark.parametrize("final", ["before and behind", "before and begun anew", "short"])
def test_behind_an_answer_only_what_is_new_is_shown(final: str) -> None:
    """The earlier response showed `before`; a text that is shorter than that is another one."""
    encoder = ChatStream(replace(HEAD, before=6), with_usage=False)
    raw = encoder.begin() + encoder.event(
        Outgoing(EventType.COMPLETE, events.complete(MINE, [MINE], final, None, NOW), None)
    )
    outcome = READERS["chat"](raw)
    if final == "short":
        assert (outcome.end, outcome.code) == ("error", "REPLY_RESTARTED")
    else:
        assert (outcome.end, outcome.text) == ("complete", final[6:])

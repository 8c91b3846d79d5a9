"""The session file as pi is to find it, and what pi's events mean: pure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lobu_actors.agents.pi import session
from lobu_actors.agents.pi.events import Note, Question, Read, Reading, Settled, Show, Stop, Text, answer
from lobu_actors.agents.pi.settings import Settings, model_of, read
from lobu_actors.worker import Fail

Json = dict[str, Any]


def said(role: str, stop: str | None = None) -> Json:
    return {"type": "message", "id": f"{role}{stop}", "message": {"role": role, "content": [], "stopReason": stop}}


HEADER = {"type": "session", "version": 3, "id": "s", "cwd": "/old"}
CHANGE: Json = {"type": "model_change", "id": "m"}
COMPACTION: Json = {"type": "compaction", "id": "c"}
USER, ANSWER, CALL, RESULT = said("user"), said("assistant", "stop"), said("assistant", "toolUse"), said("toolResult")
ERROR, ABORTED = said("assistant", "error"), said("assistant", "aborted")


def lines(*entries: Json) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


@pytest.mark.parametrize(
    ("entries", "kept"),
    [
        ([HEADER, CHANGE, USER, ANSWER], 4),
        ([HEADER, USER, ANSWER, USER], 3),
        ([HEADER, USER, ANSWER, USER, CALL, RESULT], 3),
        ([HEADER, USER, ANSWER, USER, CALL, RESULT, USER], 3),
        ([HEADER, USER, ANSWER, USER, ERROR], 3),
        ([HEADER, USER, ANSWER, USER, ABORTED, USER], 3),
        ([HEADER, USER, CALL, RESULT, USER, ANSWER], 6),
        ([HEADER, USER, ANSWER, COMPACTION, CHANGE], 5),
        ([HEADER, USER, ANSWER, COMPACTION, USER, CHANGE], 4),
        ([HEADER, CHANGE, USER, ERROR], 0),
        ([HEADER], 0),
        ([], 0),
    ],
)
def test_what_is_unanswered_goes(entries: list[Json], kept: int) -> None:
    data = lines(*entries)
    assert session.answered(data) == lines(*entries[:kept])
    assert session.answered(session.answered(data)) == session.answered(data)


def test_the_session_moves_with_its_folder_and_else_stays_byte_for_byte() -> None:
    data = lines(HEADER, USER)
    assert session.moved(data, "/old") is data
    moved = session.moved(data, "/new ä")
    assert json.loads(moved.split(b"\n")[0]) == HEADER | {"cwd": "/new ä"}
    assert moved.split(b"\n")[1:] == data.split(b"\n")[1:]
    for other in (b"", b"no json\n", lines(USER), b"[1]\n"):
        assert session.moved(other, "/new") == other


def test_a_torn_line_goes_and_a_session_without_answers_too(tmp_path: Path) -> None:
    file = tmp_path / "session.jsonl"
    session.prepare(str(file), "/old", trim=True)
    assert not file.exists()
    whole = lines(HEADER, USER, ANSWER)
    for trim in (True, False):
        file.write_bytes(whole + b'{"type": "mess')
        session.prepare(str(file), "/old", trim=trim)
        assert file.read_bytes() == whole
        assert file.stat().st_mode & 0o777 == 0o600
    inode = file.stat().st_ino
    session.prepare(str(file), "/old", trim=True)
    assert file.stat().st_ino == inode, "what is fit is not written anew"
    file.write_bytes(whole + lines(USER))
    session.prepare(str(file), "/old", trim=False)
    assert file.read_bytes() == whole + lines(USER), "what was stored is what pi finds"
    file.write_bytes(lines(HEADER, USER))
    session.prepare(str(file), "/old", trim=True)
    assert not file.exists()
    assert list(tmp_path.iterdir()) == []


def update(kind: str, delta: str = "") -> Json:
    return {"type": "message_update", "assistantMessageEvent": {"type": kind, "delta": delta}}


def test_a_turn_with_a_tool() -> None:
    reading = Reading()
    start: Json = {"type": "message_start", "message": {"role": "assistant"}}
    usage = {"input": 7, "cacheRead": 3, "output": 2, "totalTokens": 12}
    end: Json = {"type": "message_end", "message": {"role": "assistant", "stopReason": "toolUse", "usage": usage}}
    tool: Json = {"toolCallId": "1", "toolName": "bash"}
    events: list[Json] = [
        {"type": "agent_start"},
        {"type": "message_start", "message": {"role": "user", "content": "hi"}},
        start, update("thinking_delta", "hm"), update("text_delta", "a"), update("text_delta", "b"), end,
        {"type": "tool_execution_start"} | tool,
        {"type": "tool_execution_start", "toolCallId": "2", "toolName": "read"},
        {"type": "tool_execution_end"} | tool, {"type": "tool_execution_end", "toolCallId": "2"},
        start, update("text_delta", "c"), end, {"type": "news"}, {"type": "agent_settled"},
    ]  # fmt: skip
    assert [action for event in events for action in reading.take(event)] == [
        Read("hi"), Show("thinking", "model"), Text("a"), Text("b"), Show("running bash", "tool", "bash"),
        Show("running read", "tool", "read"), Show("thinking", "model"), Text("\n\nc"), Settled(),
    ]  # fmt: skip
    assert reading.began
    assert reading.usage == {"inputTokens": 20, "cachedInputTokens": 6, "outputTokens": 4, "totalTokens": 24}


def test_a_retry_behind_shown_text_stops_pi() -> None:
    reading = Reading()
    retry = {"type": "auto_retry_start", "delayMs": 2000, "errorMessage": "503: {}"}
    [show] = reading.take(retry)
    assert isinstance(show, Show)
    assert (show.phase, show.code) == ("waiting", "PROVIDER_UNAVAILABLE")
    reading.take({"type": "message_start", "message": {"role": "assistant"}})
    reading.take(update("text_delta", "half"))
    assert reading.take(retry) == [Stop()]


@pytest.mark.parametrize(
    ("method", "text", "wire"),
    [
        ("confirm", "yes", {"confirmed": True}), ("confirm", "Yes ", {"confirmed": True}),
        ("confirm", "ok", {"confirmed": False}), ("select", "A", {"value": "A"}),
        ("select", "a", {"cancelled": True}), ("input", "anything", {"value": "anything"}),
    ],
)  # fmt: skip
def test_only_what_was_offered_is_consent(method: str, text: str, wire: Json) -> None:
    request = {"type": "extension_ui_request", "id": "q", "method": method, "title": "T", "options": ["A", "B"]}
    [question] = Reading().take(request)
    assert isinstance(question, Question)
    assert answer(question, text) == {"type": "extension_ui_response", "id": "q"} | wire


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": 5},
        {"type": "message_start"},
        {"type": "message_update"},
        {"type": "message_end", "message": {"role": "assistant", "usage": []}},
        {"type": "message_start", "message": {"role": "user"}},
        {"type": "extension_ui_request", "method": "confirm"},
        {"type": "auto_retry_start"},
        {"type": "tool_execution_end"},
    ],
)
def test_events_of_any_form_are_taken(event: Json) -> None:
    Reading().take(event)


def test_a_note_is_shown_and_the_rest_of_a_terminal_is_not() -> None:
    request = {"type": "extension_ui_request", "id": "n", "message": "m"}
    assert Reading().take(request | {"method": "notify"}) == [Note("m")]
    assert Reading().take(request | {"method": "setStatus"}) == []


def test_settings_become_options() -> None:
    assert Settings().options() == []
    found = read({"system_prompt": "S", "tools": ["read", "ls"], "thinking": "low", "model": "m"})
    assert found.options() == ["--append-system-prompt", "S", "--tools", "read,ls", "--thinking", "low"]
    assert read({"tools": []}).options() == ["--no-tools"]
    with pytest.raises(Fail):
        read({"tools": "bash"})
    assert model_of({"model": "a/b/c"}, []) == ("a", "b/c")
    assert model_of({"model": "a/b"}, [{"model": "x"}, {}]) == (None, "x")
    assert model_of({}, []) == (None, None)

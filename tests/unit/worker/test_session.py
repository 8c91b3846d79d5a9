"""The session file: what is appended, what is cut, what is read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lobu_actors.worker.session import SessionFile, text_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".openclaw" / "session.jsonl"


def entries(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def roles(path: Path) -> list[str]:
    return [entry["message"]["role"] for entry in entries(path)[1:]]


def test_a_new_file_starts_with_a_header(path: Path) -> None:
    file = SessionFile(str(path), "/somewhere")
    file.begin(["hi"], again=False)
    file.finish("hello", "openai/gpt", {"totalTokens": 3})
    header, user, assistant = entries(path)
    assert (header["type"], header["version"], header["cwd"]) == ("session", 3, "/somewhere")
    assert user["parentId"] is None
    assert assistant["parentId"] == user["id"]
    message = assistant["message"]
    assert (message["provider"], message["model"], message["stopReason"]) == ("openai", "gpt", "stop")
    assert message["usage"] == {"totalTokens": 3}
    assert path.stat().st_mode & 0o777 == 0o600


def test_another_process_goes_on_where_the_file_ends(path: Path) -> None:
    SessionFile(str(path), "/").begin(["one"], again=False)
    file = SessionFile(str(path), "/")
    file.begin(["two"], again=False)
    assert entries(path)[2]["parentId"] == entries(path)[1]["id"]
    assert [text_of(message["content"]) for message in file.history()] == ["one", "two"]


def test_a_file_that_was_replaced_between_turns_is_read_again(path: Path) -> None:
    file = SessionFile(str(path), "/")
    file.begin(["one"], again=False)
    first = path.read_bytes()
    file.finish("reply", "", None)
    path.write_bytes(first)
    file.begin(["two"], again=False)
    assert entries(path)[2]["parentId"] == entries(path)[1]["id"]


CARRIED = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "", "toolCalls": [{"id": "c", "name": "look", "arguments": '{"at": 1}'}]},
    {"role": "tool", "content": "seen", "toolCallId": "c"},
    {"role": "assistant", "content": "first"},
]


def test_what_was_said_elsewhere_comes_first_in_a_new_file_only(path: Path) -> None:
    file = SessionFile(str(path), "/")
    file.begin(["two"], again=False, carried=CARRIED)
    before = ["user", "assistant", "toolResult", "assistant"]
    assert roles(path) == [*before, "user"]
    assert entries(path)[2]["message"]["content"][1] == {
        "type": "toolCall", "id": "c", "name": "look", "arguments": {"at": 1}
    }  # fmt: skip
    # Another attempt, in this process and in another one, carries nothing twice.
    file.begin(["two"], again=True, carried=CARRIED)
    SessionFile(str(path), "/").begin(["two"], again=True, carried=CARRIED)
    assert roles(path) == [*before, "user"]
    file = SessionFile(str(path), "/")
    file.finish("second", "", None)
    file.begin(["three"], again=False, carried=CARRIED)
    assert [text_of(message["content"]) for message in file.history()][3:] == ["first", "two", "second", "three"]


def test_results_of_the_clients_calls_stand_before_what_the_user_says_and_go_with_it(path: Path) -> None:
    file = SessionFile(str(path), "/")
    file.begin(["one"], again=False, carried=CARRIED[:2])
    result = {"toolCallId": "c", "content": "seen"}
    assert file.begin(["two"], again=True, results=[result]) == 2
    result_entry = entries(path)[-2]["message"]
    assert {name: result_entry[name] for name in ("role", "toolCallId", "toolName", "content", "fromClient")} == {
        "role": "toolResult", "toolCallId": "c", "toolName": "look", "content": [{"type": "text", "text": "seen"}],
        "fromClient": True,
    }  # fmt: skip
    assert roles(path) == ["user", "assistant", "toolResult", "user"], "the first attempt's message was cut"
    # Another attempt has them once; what a turn that succeeded recorded of its own calls stays.
    SessionFile(str(path), "/").begin([], again=True, results=[result])
    assert roles(path) == ["user", "assistant", "toolResult"]
    file = SessionFile(str(path), "/")
    file.finish("", "", None, [{"role": "toolResult", "toolCallId": "own", "content": []}])
    SessionFile(str(path), "/").begin(["three"], again=True)
    assert roles(path) == ["user", "assistant", "toolResult", "toolResult", "user"]


@pytest.mark.parametrize("torn", [b'{"type":"mess', b"\xff\xfe", b"x"])
def test_a_torn_last_line_is_cut(path: Path, torn: bytes) -> None:
    SessionFile(str(path), "/").begin(["one"], again=False)
    with path.open("ab") as file:
        file.write(torn)
    SessionFile(str(path), "/").begin(["two"], again=False)
    assert roles(path) == ["user", "user"]


def test_a_file_of_one_torn_line_gets_a_header(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"type":"sess')
    SessionFile(str(path), "/").begin(["one"], again=False)
    assert entries(path)[0]["type"] == "session"


def test_only_another_attempt_cuts_unanswered_messages(path: Path) -> None:
    file = SessionFile(str(path), "/")
    file.begin(["one"], again=False)
    file.finish("reply", "", None)
    file.begin(["two", "three"], again=False)
    SessionFile(str(path), "/").begin(["two", "three"], again=True)
    assert roles(path) == ["user", "assistant", "user", "user"]
    file = SessionFile(str(path), "/")
    file.begin(["four"], again=False)
    assert roles(path)[-1] == "user"
    assert len(roles(path)) == 5


def test_lines_that_are_no_entries_are_skipped(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"type":"session","version":3,"id":"s"}\nnonsense\n[1]\n{"type":"message","message":7}\n')
    assert SessionFile(str(path), "/").history() == []


def test_a_link_in_its_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"")
    path.symlink_to(elsewhere)
    with pytest.raises(OSError, match=r"symbolic links"):
        SessionFile(str(path), "/").begin(["one"], again=False)


def test_text_of() -> None:
    assert text_of("a") == "a"
    assert text_of([{"type": "text", "text": "a"}, {"type": "image"}, 3, {"type": "text", "text": "b"}]) == "ab"
    assert text_of(None) == ""

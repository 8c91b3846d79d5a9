"""`lobu chat` against a scripted gateway: what is printed, what is sent, and the exit codes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.main import run_cli

Gateway = Any  # the fixture's class; tests/ is no package

DONE = {"messageId": "MID", "processedMessageIds": ["MID"]}
HELLO = [
    ("connected", {"agentId": "k", "timestamp": 1}, None),
    ("output", {"type": "delta", "content": "Hel", "messageId": "MID"}, "0.1.3"),
    ("output", {"type": "delta", "content": "lo", "messageId": "MID"}, "0.1.5"),
    ("complete", {**DONE, "type": "complete", "finalText": "Hello"}, "1"),
]
QUESTION = ("question", {"questionId": "q", "prompt": "Go on?", "options": ["yes", "no"], "messageId": "MID"}, "1")


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_reply_and_exit_code(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.streams = [HELLO]
    assert run_cli(["chat", "hi", "there", "--agent", "echo", "--user", "u"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("Hello\n", "")
    assert gateway.calls[0] == ("POST", "", {"agentId": "echo", "userId": "u"})
    assert gateway.calls[1][2]["content"] == "hi there"
    assert Path(".lobu/last_chat").read_text() == "echo_u_o\n"


def test_continue_uses_the_last_conversation(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["chat", "--continue", "x"]) == 1
    assert "no earlier chat in this folder" in capsys.readouterr().err
    gateway.streams = [HELLO, HELLO]
    run_cli(["chat", "one"])
    assert run_cli(["chat", "--continue", "two"]) == 0
    assert [call[1] for call in gateway.calls if call[0] == "POST"] == ["", *["/echo_u_o/messages"] * 2]


def test_json_prints_every_event(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.streams = [HELLO]
    assert run_cli(["chat", "--json", "hi"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["output", "output", "complete"]
    assert lines[2]["data"]["finalText"] == "Hello"


def test_error_is_told_on_stderr(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    error = {**DONE, "type": "error", "error": "The worker ended.", "errorCode": "WORKER_CRASHED"}
    gateway.streams = [[HELLO[1], ("agent-error", error, "1"), ("error", error, "1")]]
    assert run_cli(["chat", "hi"]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("Hel\n", "lobu: WORKER_CRASHED: The worker ended.\n")


def test_what_is_known_of_an_error_is_told_with_it(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    context = {"reason": "not-started", "detail": "It exited with code 1."}
    error = {**DONE, "type": "error", "error": "No.", "errorCode": "X", "errorContext": context}
    gateway.streams = [[("agent-error", error, "1")]]
    assert run_cli(["chat", "hi"]) == 1
    assert capsys.readouterr().err == "lobu: X: No. (It exited with code 1.)\n"


def test_restart_shows_the_whole_reply_again(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    restart = ("restart", {"messageId": "MID", "attempt": 2, "reason": "host lost"}, "1")
    again = ("output", {"content": "Hello", "messageId": "MID"}, "1.2.5")
    gateway.streams = [[HELLO[1], restart, again, (*HELLO[3][:2], "2")]]
    assert run_cli(["chat", "hi"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("Hel\nHello\n", "(starting over: host lost)\n")


def test_lost_deltas_are_made_good(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.streams = [[HELLO[1], HELLO[3]]]
    assert run_cli(["chat", "hi"]) == 0
    assert capsys.readouterr().out == "Hello\n"


def test_question_is_answered_by_number(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, "7\n2\n")
    gateway.streams = [[HELLO[1], QUESTION], [("output", {"content": "lo", "messageId": "MID"}, "1.1.5"), HELLO[3]]]
    gateway.streams[1][1] = ("complete", HELLO[3][1], "2")
    assert run_cli(["chat", "hi"]) == 0
    assert ("POST", "/echo_u_o/questions/q/answer", {"answer": "no"}) in gateway.calls
    assert gateway.calls[-1][2] == "1"  # followed on from behind the question
    out, err = capsys.readouterr()
    assert out == "Hello\n"  # the reply and nothing else, and none of it twice
    assert err.startswith("\nGo on?\n  1) yes\n  2) no\n")


@pytest.mark.parametrize("sentence", ["Somebody else was first.", "This question is not waited for any more."])
def test_an_answer_that_comes_too_late_is_told_why(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sentence: str
) -> None:
    type_in(monkeypatch, "1\n")
    gateway.streams = [[QUESTION], [("complete", {**DONE, "finalText": "x"}, "2")]]
    gateway.answer_refusal = (409, "QUESTION_WITHDRAWN", sentence)
    assert run_cli(["chat", "hi"]) == 0
    assert f"({sentence})" in capsys.readouterr().err


def test_what_is_no_part_of_the_reply_does_not_repeat_it(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.streams = [[HELLO[1], ("ephemeral", {"content": "looking", "messageId": "MID"}, None), *HELLO[2:]]]
    assert run_cli(["chat", "hi"]) == 0
    assert capsys.readouterr() == ("Hello\n", "\n(looking)\n")


def test_question_that_nobody_answers_cancels_the_turn(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, "")
    gateway.streams = [[QUESTION], [("cancelled", {**DONE, "finalText": ""}, "2")]]
    assert run_cli(["chat", "hi"]) == 1
    assert gateway.cancelled.is_set()
    assert "nobody to answer it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (("complete", {**DONE, "finalText": "Hello"}, "2"), 0),
        (("agent-error", {**DONE, "errorCode": "QUESTION_TIMEOUT", "error": "Too late."}, "2"), 1),
    ],
)
def test_a_turn_that_ended_while_its_question_was_shown_ends_as_it_did(
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    end: tuple[str, dict[str, Any], str],
    code: int,
) -> None:
    type_in(monkeypatch, "")
    gateway.streams = [[QUESTION], [end]]
    assert run_cli(["chat", "hi"]) == code
    err = capsys.readouterr().err
    assert "nobody to answer it" not in err
    assert ("QUESTION_TIMEOUT: Too late." in err) == bool(code)


def test_ctrl_c_cancels_the_turn_first(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.streams = [[HELLO[1], ("WAIT", {}, None)], [("cancelled", {**DONE, "finalText": "Hel"}, "1")]]

    def press() -> None:
        gateway.following.wait(10)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    assert run_cli(["chat", "hi"]) == 130
    presser.join()
    assert ("POST", "/echo_u_o/cancel", {"messageId": gateway.message_id}) in gateway.calls
    assert capsys.readouterr().err == "(cancelled)\n"


def test_text_from_a_pipe(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.streams = [HELLO]
    type_in(monkeypatch, "from a pipe\n")
    assert run_cli(["chat"]) == 0
    assert gateway.calls[1][2]["content"] == "from a pipe"
    type_in(monkeypatch, "")
    assert run_cli(["chat"]) == 2


def test_interactive_session(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, "one\n\ntwo\n/new\nthree\n")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    error = {**DONE, "type": "error", "error": "No.", "errorCode": "X"}
    gateway.streams = [HELLO, [("agent-error", error, "1")], HELLO]
    assert run_cli(["chat"]) == 0
    sent = [call[2] for call in gateway.calls if call[0] == "POST"]
    assert [body.get("content", body) for body in sent] == [{}, "one", "two", {"forceNew": True}, "three"]
    assert "lobu: X: No.\n" in capsys.readouterr().err


def test_server_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli(["chat", "--gateway", "http://127.0.0.1:9", "hi"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("lobu: nothing answers at http://127.0.0.1:9; start the server with `lobu run`")
    assert err.count("\n") == 1


@pytest.mark.parametrize("word", ["a\0b", "\udcff"])
def test_text_that_cannot_travel(gateway: Gateway, word: str) -> None:
    assert run_cli(["chat", word]) == 2
    assert gateway.calls == []


def test_refusals_say_what_to_do(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.refusal = (404, "NO_DEFAULT_AGENT", "This organization has no default agent.")
    assert run_cli(["chat", "hi"]) == 1
    assert capsys.readouterr().err == (
        "lobu: This organization has no default agent; name one with --agent. (NO_DEFAULT_AGENT)\n"
    )
    gateway.refusal = (401, "UNAUTHORIZED", "The API key is not valid.")
    assert run_cli(["cancel", "k"]) == 1
    assert "set LOBU_ADMIN_KEY" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--continue", "--new", "x"], ["--new", "--thread", "t", "x"]])
def test_flags_that_exclude_each_other(gateway: Gateway, words: list[str]) -> None:
    assert run_cli(["chat", *words]) == 2


def test_folder_key_is_not_sent_elsewhere(gateway: Gateway) -> None:
    from supervisor.config.gateway import find_gateway

    assert find_gateway(None, environ={}).key == "lobu_key"
    assert find_gateway(gateway.url, environ={}).key == "lobu_key"
    assert find_gateway("https://elsewhere.example", environ={}).key is None
    assert find_gateway("https://elsewhere.example", environ={"LOBU_ADMIN_KEY": "lobu_x"}).key == "lobu_x"


def test_a_reader_of_the_reply_that_goes_away_ends_the_chat_without_a_word(gateway: Gateway) -> None:
    gateway.streams = [HELLO]
    gone, stdout = os.pipe()
    os.close(gone)
    with open(stdout, "wb") as output:
        words = [sys.executable, "-m", "supervisor.cli.main", "chat", "hi"]
        done = subprocess.run(words, stdout=output, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("words", [[""], [" ", "  "]])
def test_a_text_without_words_is_not_sent(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert run_cli(["chat", *words]) == 2
    assert "nothing to send" in capsys.readouterr().err
    assert not gateway.calls

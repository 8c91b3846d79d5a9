"""Chunks of providers that differ, put together to one answer; and the session's messages as a request carries them."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobu_actors.agents.openai import history
from lobu_actors.agents.openai.dialect import Answer, Call, Usage, request_body
from lobu_actors.agents.provider_errors import ProviderError


def chunk(delta: Any = None, finish: str | None = None, **more: Any) -> str:
    return json.dumps({"choices": [{"delta": delta or {}, "finish_reason": finish}], **more})


def part(arguments: str = "", **more: Any) -> str:
    name = more.pop("name", None)
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return chunk({"tool_calls": [{**more, "function": function}]})


def taken(*data: str) -> Answer:
    answer = Answer()
    for item in data:
        answer.take(item)
    return answer


def test_text_usage_and_end() -> None:
    usage = {"prompt_tokens": 3}
    role = {"role": "assistant", "content": ""}
    answer = taken(chunk(role), chunk({"content": "a"}), chunk({"content": "b"}, "stop"))
    answer.take(json.dumps({"choices": [], "usage": usage}))
    answer.take("[DONE]")
    answer.check_whole()
    assert (answer.text, answer.finish_reason, answer.usage, answer.ended) == ("ab", "stop", usage, True)


@pytest.mark.parametrize(
    "pieces",
    [
        [part('{"a"', index=0, id="x", name="f"), part(":1}", index=0), part("{}", index=1, id="y", name="g")],
        [part('{"a":1}', id="x", name="f"), part("{}", id="y", name="g")],  # no index
        [part('{"a":', id="x", name="f"), part("1}"), part("{", id="y", name="g"), part("}", id="y")],
    ],
)
def test_tool_calls_come_in_pieces_of_any_kind(pieces: list[str]) -> None:
    answer = taken(*pieces, chunk({}, "tool_calls"))
    answer.check_whole()
    assert answer.calls == [Call("x", "f", '{"a":1}'), Call("y", "g", "{}")]


@pytest.mark.parametrize(
    "data",
    ["{", "[]", part("{}", index=3), part("{}", index=-1), json.dumps({"error": {"message": "no", "code": 503}})],
)
def test_what_is_not_the_dialect_is_an_error_that_may_pass(data: str) -> None:
    with pytest.raises(ProviderError) as caught:
        taken(data)
    assert (caught.value.code, caught.value.may_retry) == ("PROVIDER_UNAVAILABLE", True)


@pytest.mark.parametrize(
    "data",
    ["{}", '{"choices": null}', '{"choices": [null]}', '{"choices": [{"delta": null}]}', chunk({"tool_calls": 5})],
)
def test_odd_chunks_neither_end_nor_break_an_answer(data: str) -> None:
    answer = taken(chunk({"content": "a"}), data)
    assert answer.text == "a"
    with pytest.raises(ProviderError, match="in the middle"):
        answer.check_whole()


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "name"]), inner),
    max_leaves=3,
)
PARTS = st.fixed_dictionaries({}, optional={"index": ANY, "id": ANY, "function": ANY})
DELTAS = st.fixed_dictionaries({}, optional={"content": ANY, "tool_calls": ANY | st.lists(PARTS), "reasoning": ANY})
CHOICES = st.fixed_dictionaries({}, optional={"delta": ANY | DELTAS, "finish_reason": ANY})
CHUNKS = ANY | st.fixed_dictionaries({}, optional={"choices": ANY | st.lists(CHOICES), "error": ANY, "usage": ANY})


@given(st.lists(CHUNKS))
def test_no_chunk_raises_anything_else(chunks: list[Any]) -> None:
    answer = Answer()
    with suppress(ProviderError):
        for value in chunks:
            answer.take(json.dumps(value))
    history.entry_of_answer(answer, "p", "m", None)
    Usage().add(answer.usage)


def test_thoughts_are_seen_and_are_no_text() -> None:
    answer = Answer()
    assert answer.take(chunk({"reasoning_content": "hm"})) == ""
    assert answer.reasoned
    answer.take(chunk({"content": "x"}))
    assert (answer.reasoned, answer.text) == (False, "x")


def test_usage_is_the_sum_of_all_requests_and_none_when_nothing_was_told() -> None:
    usage = Usage()
    usage.add(None)
    assert usage.total() is None
    for _ in range(2):
        usage.add(
            {
                "prompt_tokens": 3,
                "completion_tokens": 2,
                "total_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 1},
            }
        )
    usage.add({"prompt_tokens": "x", "completion_tokens_details": None})
    assert usage.total() == {"inputTokens": 6, "outputTokens": 4, "totalTokens": 10, "cachedInputTokens": 2}


def test_an_agents_parameters_do_not_replace_what_the_loop_needs() -> None:
    body = request_body("m", [], {}, {"stream": False, "messages": [1], "model": "x", "top_p": 1})
    assert (body["stream"], body["messages"], body["model"], body["top_p"]) == (True, [], "m", 1)
    assert "tools" not in body, "some providers refuse an empty list"


def test_a_turn_with_tools_comes_back_as_it_was() -> None:
    answer = Answer(text="let me see", calls=[Call("x", "f", '{"a": 1}')])
    entries = [
        history.entry_of_user("hi"),
        history.entry_of_answer(answer, "openai", "m", None),
        history.entry_of_result(answer.calls[0], "5", False),
        history.entry_of_answer(Answer(text="five"), "openai", "m", {"inputTokens": 1}),
    ]
    assert [entry.get("stopReason") for entry in entries] == [None, "toolUse", None, "stop"]
    assert history.to_chat(entries) == [
        {"role": "user", "content": "hi"},
        history.assistant("let me see", answer.calls),
        history.tool_result("x", "5"),
        {"role": "assistant", "content": "five"},
    ]


def test_calls_without_results_get_one_and_results_without_calls_are_left_out() -> None:
    call = Call("x", "f", "{}")
    asked = history.entry_of_answer(Answer(calls=[call]), "p", "m", None)
    stray = history.entry_of_result(Call("y", "g"), "?", False)
    chat = history.to_chat([stray, asked, stray, history.entry_of_user("hi"), {"role": "system"}, asked])
    none = history.tool_result("x", history.NO_RESULT)
    assert chat == [
        history.assistant("", [call]), none, {"role": "user", "content": "hi"}, history.assistant("", [call]), none,
    ]  # fmt: skip


def test_a_result_that_a_client_sent_of_a_call_that_is_not_known_is_what_the_user_says() -> None:
    call = Call("x", "f", "{}")
    asked = history.entry_of_answer(Answer(calls=[call]), "p", "m", None)
    sent = history.entry_of_result(Call("y", "g"), "42", False) | {"fromClient": True}
    user = {"role": "user", "content": "42"}
    assert history.to_chat([sent]) == [user]
    assert history.to_chat([asked, sent]) == [
        history.assistant("", [call]), history.tool_result("x", history.NO_RESULT), user,
    ]  # fmt: skip
    assert history.to_chat([asked, sent | {"toolCallId": "x"}])[1:] == [history.tool_result("x", "42")]


@pytest.mark.parametrize(("text", "found"), [("", {}), ("{}", {}), ('{"a":1}', {"a": 1}), ("[1]", None), ("{", None)])
def test_arguments(text: str, found: object) -> None:
    assert history.arguments_of(text) == found

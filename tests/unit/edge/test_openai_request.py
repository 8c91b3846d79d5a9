"""What of a request to OpenAI's addresses reaches a worker, and in which form; what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from edge.dialects.messages import BadMessages
from edge.dialects.openai_request import chat_request, responses_request

USER = {"role": "user", "content": "hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "42"}


def chat(**more: Any) -> dict[str, Any]:
    return chat_request({"model": "m", "messages": [USER], **more}).payload_of(fresh=True)


def responses(**more: Any) -> dict[str, Any]:
    return responses_request({"model": "m", "input": "hi", **more}).payload_of(fresh=True)


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        ("auto", "auto"), ("none", "none"), ("required", "required"),
        ({"type": "function", "function": {"name": "look"}}, {"name": "look"}),
        ({"type": "function", "name": "look"}, {"name": "look"}),
    ],
)  # fmt: skip
def test_one_form_of_a_choice(choice: Any, found: Any) -> None:
    assert chat(tool_choice=choice)["toolChoice"] == responses(tool_choice=choice)["toolChoice"] == found


@pytest.mark.parametrize("choice", ["any", 5, [], {}, {"type": "web_search"}, {"type": "function", "function": 5}])
def test_a_choice_that_is_none(choice: Any) -> None:
    with pytest.raises(BadMessages, match="`tool_choice` must be auto"):
        chat(tool_choice=choice)


def test_parameters_have_the_names_of_chat_completions() -> None:
    assert chat(temperature=0, top_p=None, unknown=1, max_tokens=5)["parameters"] == {"temperature": 0, "max_tokens": 5}
    schema = {"type": "json_schema", "name": "n", "schema": {}}
    found = responses(max_output_tokens=5, reasoning={"effort": "low"}, text={"format": schema}, temperature=0)
    assert found["parameters"] == {
        "max_completion_tokens": 5, "reasoning_effort": "low", "temperature": 0,
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
    }  # fmt: skip
    assert responses(text={"format": {"type": "text"}})["parameters"] == {"response_format": {"type": "text"}}
    assert "parameters" not in responses(reasoning=5, text=[])


def test_results_alone_are_told_from_what_the_user_says() -> None:
    asked = [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, RESULT]
    alone = chat_request({"messages": asked})
    assert (alone.content, alone.payload_of(fresh=False)) == (
        "42", {"toolResults": [{"toolCallId": "c1", "content": "42"}], "onlyResults": True},
    )  # fmt: skip
    both = chat_request({"messages": [*asked, {"role": "user", "content": "and?"}]})
    assert (both.content, "onlyResults" in both.payload_of(fresh=False)) == ("and?", False)

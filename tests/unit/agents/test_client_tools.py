"""What a client's tools and wishes become in a request to the model; and what a program is told around a message."""

from __future__ import annotations

from typing import Any

import pytest

from lobu_actors.agents.briefing import MAX_TRANSCRIPT_CHARS, briefed
from lobu_actors.agents.openai import client_tools
from lobu_actors.agents.openai.dialect import Call

LOOK: dict[str, Any] = {
    "name": "look",
    "description": "Looks.",
    "parameters": {"type": "object", "x": 1},
    "strict": True,
}
OWN: dict[str, Any] = {"type": "function", "function": {"name": "own"}}


def names(fields: dict[str, Any]) -> list[str]:
    return [tool["function"]["name"] for tool in fields.get("tools", [])]


def test_a_clients_tools_stand_beside_the_agents_own() -> None:
    found = client_tools.read(
        [LOOK, {"name": "bare"}, {"name": 5}, {}, {"name": "look", "description": "again"}], "auto"
    )
    fields = found.beside([OWN])
    assert names(fields) == ["own", "look", "bare"]
    assert "tool_choice" not in fields
    assert fields["tools"][1] == {"type": "function", "function": LOOK}
    assert fields["tools"][2]["function"]["parameters"] == {"type": "object", "properties": {}}
    calls = [Call("1", "look"), Call("2", "own"), Call("3", "nothing")]
    assert found.split(calls) == ([calls[1], calls[2]], [calls[0]])


@pytest.mark.parametrize(
    ("tools", "choice", "offered", "demanded"),
    [
        ([LOOK], "auto", ["own", "look"], None),
        ([LOOK], "none", ["own"], None),
        ([LOOK], "required", ["look"], "required"),
        ([LOOK], {"name": "look"}, ["look"], {"type": "function", "function": {"name": "look"}}),
        ([LOOK], {"name": "other"}, ["own", "look"], None),
        ([LOOK], {"name": []}, ["own", "look"], None),
        ([], "required", ["own"], None),
    ],
)
def test_what_is_demanded_is_demanded_of_the_clients_tools(
    tools: list[Any], choice: Any, offered: list[str], demanded: Any
) -> None:
    fields = client_tools.read(tools, choice).beside([OWN])
    assert (names(fields), fields.get("tool_choice")) == (offered, demanded)


def test_an_agents_settings_stand_over_a_clients_wishes() -> None:
    wishes = {"temperature": 1, "top_p": 0.5, "metadata": {}, "parallel_tool_calls": False, "unknown": 1}
    assert client_tools.parameters(wishes, {"temperature": 0}, has_tools=True) == {
        "temperature": 0, "top_p": 0.5, "parallel_tool_calls": False,
    }  # fmt: skip
    assert client_tools.parameters(wishes, {}, has_tools=False) == {"temperature": 1, "top_p": 0.5}
    assert client_tools.read([], "auto").beside([]) == {}, "some providers refuse an empty list"


def test_a_message_alone_stays_as_it_is() -> None:
    assert briefed("hi") == "hi"


def test_a_message_with_what_the_agent_does_not_know() -> None:
    said = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "", "toolCalls": []},
        {"role": "tool", "content": "42"},
        {"role": "toolResult", "content": [{"type": "text", "text": "43"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "first"}]},
    ]
    assert briefed("two", history=said, summary="Long ago.", instructions="Be brief.") == (
        "This conversation goes on. What was said in it before:\n\n"
        "Long ago.\n\nUser: one\n\nResult: 42\n\nResult: 43\n\nYou: first\n\n"
        "What you are asked to observe from here on:\n\nBe brief.\n\nThe new message:\n\ntwo"
    )
    long = briefed("two", history=[{"role": "user", "content": "x" * MAX_TRANSCRIPT_CHARS}])
    assert "[…]xxx" in long
    assert long.endswith("The new message:\n\ntwo")

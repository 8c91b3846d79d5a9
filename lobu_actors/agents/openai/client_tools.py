"""The tools that the client carries out itself, beside those of MCP servers: what the model is offered of them. Pure.

A call of such a tool ends the turn; the client's next message brings the result. Owns what a client's `tool_choice`
means here: it is about the client's tools, of which alone the client knows. `none` hides them and leaves the agent its
own; a demand is met in the first request, which therefore offers nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lobu_actors.agents.openai.dialect import Call

Json = dict[str, Any]
NO_PARAMETERS: Json = {"type": "object", "properties": {}}
FORWARDED = frozenset(
    {
        "temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed", "presence_penalty",
        "frequency_penalty", "reasoning_effort", "response_format",
    }
)  # fmt: skip
PARALLEL = "parallel_tool_calls"  # refused by providers where there is no tool


@dataclass(frozen=True)
class ClientTools:
    """`offered`: as a request carries them. `demanded`: the `tool_choice` of a client that wants a call."""

    offered: list[Json] = field(default_factory=list)
    demanded: str | Json | None = None

    @property
    def names(self) -> set[str]:
        return {tool["function"]["name"] for tool in self.offered}

    def beside(self, own: list[Json]) -> Json:
        """What of a request is about tools, where the agent has these of its own."""
        if self.demanded is not None:
            return {"tools": self.offered, "tool_choice": self.demanded}
        tools = own + self.offered
        return {"tools": tools} if tools else {}

    def split(self, calls: Sequence[Call]) -> tuple[list[Call], list[Call]]:
        """The agent's own calls, and those for the client."""
        names = self.names
        return [call for call in calls if call.name not in names], [call for call in calls if call.name in names]


def read(tools: Sequence[Json], choice: str | Json) -> ClientTools:
    """`tools` and `choice` as a message has them; of tools with one name the first counts."""
    found: dict[str, Json] = {}
    for tool in tools:
        if isinstance(name := tool.get("name"), str) and name:
            found.setdefault(name, tool)
    offered = [_function(tool) for tool in found.values()]
    if choice == "none" or not offered:
        return ClientTools()
    if choice == "required":
        return ClientTools(offered, "required")
    demanded = choice.get("name") if isinstance(choice, dict) else None
    if isinstance(demanded, str) and demanded in found:
        return ClientTools(offered, {"type": "function", "function": {"name": demanded}})
    return ClientTools(offered)


def parameters(of_client: Json, of_agent: Json, *, has_tools: bool) -> Json:
    """What the model is asked with: the client's wishes, and over them what the agent's settings say."""
    wished = {name: value for name, value in of_client.items() if name in FORWARDED}
    if has_tools and isinstance(of_client.get(PARALLEL), bool):
        wished[PARALLEL] = of_client[PARALLEL]
    return wished | of_agent


def _function(tool: Json) -> Json:
    function = {"name": tool["name"], "description": tool.get("description") or ""}
    function["parameters"] = tool["parameters"] if isinstance(tool.get("parameters"), dict) else NO_PARAMETERS
    if isinstance(tool.get("strict"), bool):
        function["strict"] = tool["strict"]
    return {"type": "function", "function": function}

"""What an agent's `settings` say to this worker. Pure.

Owns names, defaults and bounds; a wrong one fails the turn with a sentence that names it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lobu_actors.contract.errors import TurnError
from lobu_actors.worker import Fail

Json = dict[str, Any]
INVALID = "AGENT_SETTINGS_INVALID"


@dataclass(frozen=True)
class Settings:
    """`settings` of an agent whose worker is `openai`. Unknown names are left to others: an edge reads them too."""

    system_prompt: str = ""
    parameters: Json = field(default_factory=dict)  # of each request: temperature, max_tokens, reasoning_effort …
    mcp: list[str] | None = None  # which MCP servers the agent may use; None: all of its worker type
    max_steps: int = 50  # requests to the model in one turn
    retries: int = 3  # of one request, after the first
    retry_seconds: float = 1.0  # before the first retry; twice as long before each further one
    retry_max_seconds: float = 30.0  # a provider that asks for a longer wait is not waited for
    connect_seconds: float = 10.0
    tool_start_seconds: float = 30.0  # for an MCP server to come up and list its tools
    tool_result_chars: int = 100_000  # what is longer is cut before the model sees it


def read(values: Mapping[str, Any]) -> Settings:
    """Raises Fail."""
    found: Json = {}
    for name, default in vars(Settings()).items():
        if name in values:
            value = values[name]
            if not _fits(name, value, default):
                raise Fail(INVALID, f"The agent's setting `{name}` cannot be {value!r:.80}; see docs/agents.md.")
            found[name] = value
    return Settings(**found)


def model_of(values: Mapping[str, Any], messages: list[Json]) -> tuple[str, str]:
    """Provider and model: the newest that a message of the turn names, else the agent's. Raises Fail.

    What stands before the first slash names the provider and is not sent; a name without a slash is sent as it is.
    """
    named = [message.get("model") for message in messages[::-1]] + [values.get("model")]
    model = next((name for name in named if isinstance(name, str) and name), None)
    if model is None:
        message = 'This agent has no model configured; give it one in lobu.toml, as in model = "openai/gpt-5-mini".'
        raise Fail(TurnError.NO_MODEL_CONFIGURED, message)
    provider, slash, name = model.partition("/")
    return (provider, name) if slash and name else ("openai", model)


def _fits(name: str, value: Any, default: Any) -> bool:
    if name == "mcp":
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if isinstance(default, int | float):
        least = 1 if name in ("max_steps", "tool_result_chars") else 0
        number = isinstance(value, int if isinstance(default, int) else int | float) and not isinstance(value, bool)
        return number and least <= value < float("inf")
    return isinstance(value, type(default))

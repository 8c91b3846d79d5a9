"""What an agent's `settings` say to this worker. Pure.

Owns names, defaults and bounds; a wrong one fails the turn with a sentence that names it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lobu_actors.agents.settings import LEAST, model_named, no_model, provider_and_name
from lobu_actors.agents.settings import read as read_settings

Json = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """`settings` of an agent whose worker is `openai`."""

    system_prompt: str = ""
    parameters: Json = field(default_factory=dict)  # of each request: temperature, max_tokens, reasoning_effort …
    mcp: list[str] | None = None  # which MCP servers the agent may use; None: all of its worker type
    max_steps: int = field(default=50, metadata={LEAST: 1})  # requests to the model in one turn
    retries: int = 3  # of one request, after the first
    retry_seconds: float = 1.0  # before the first retry; twice as long before each further one
    retry_max_seconds: float = 30.0  # a provider that asks for a longer wait is not waited for
    connect_seconds: float = 10.0
    tool_start_seconds: float = 30.0  # for an MCP server to come up and list its tools
    tool_result_chars: int = field(
        default=100_000, metadata={LEAST: 1}
    )  # longer ones are cut before the model sees them


def read(values: Mapping[str, Any]) -> Settings:
    """Raises Fail."""
    return read_settings(Settings, values)


def model_of(values: Mapping[str, Any], messages: list[Json]) -> tuple[str, str]:
    """Provider and model: the newest that a message of the turn names, else the agent's. Raises Fail.

    What stands before the first slash names the provider and is not sent; a name without a slash is sent as it is.
    """
    model = model_named(values, messages)
    if model is None:
        raise no_model("openai/gpt-5-mini")
    provider, name = provider_and_name(model)
    return provider or "openai", name

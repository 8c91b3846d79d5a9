"""What an agent's `settings` say to pi. Pure.

Owns names, defaults and how they become options of pi's command line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lobu_actors.agents.settings import model_named, provider_and_name
from lobu_actors.agents.settings import read as read_settings

Json = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """`settings` of an agent whose worker is `pi`."""

    system_prompt: str = ""  # added to pi's own
    tools: list[str] | None = None  # the only ones that pi may use; none for an empty list
    thinking: str = ""  # off, minimal, low, medium, high, …; else as the model has it
    start_seconds: float = 30.0

    def options(self) -> list[str]:
        found = ["--append-system-prompt", self.system_prompt] if self.system_prompt else []
        if self.tools is not None:
            found += ["--tools", ",".join(self.tools)] if self.tools else ["--no-tools"]
        return found + (["--thinking", self.thinking] if self.thinking else [])


def read(values: Mapping[str, Any]) -> Settings:
    """Raises Fail."""
    return read_settings(Settings, values)


def model_of(values: Mapping[str, Any], messages: list[Json]) -> tuple[str | None, str | None]:
    """Provider and model, where they are named; else pi's own configuration decides."""
    model = model_named(values, messages)
    return (None, None) if model is None else provider_and_name(model)

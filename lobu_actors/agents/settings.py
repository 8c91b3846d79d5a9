"""How an agent's `settings` become the values that a worker type works with. Pure.

Owns what a value may be, and the sentence about one that may not; names, defaults and bounds are the worker types', in
a dataclass each. Unknown names are left to others: an edge reads them too.
"""

from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any, TypeVar

from lobu_actors.contract.errors import TurnError
from lobu_actors.worker import Fail

Json = dict[str, Any]
T = TypeVar("T")
INVALID = "AGENT_SETTINGS_INVALID"
LEAST = "least"  # in a field's metadata: the smallest number that it may be; 0 unless it says otherwise


def read(kind: type[T], values: Mapping[str, Any]) -> T:
    """Raises Fail."""
    found: Json = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in values:
            value = values[field.name]
            if not _fits(field, value):
                raise Fail(INVALID, f"The agent's setting `{field.name}` cannot be {value!r:.80}; see docs/agents.md.")
            found[field.name] = value
    return kind(**found)


def model_named(values: Mapping[str, Any], messages: list[Json]) -> str | None:
    """The newest model that a message of the turn names, else the agent's."""
    named = [message.get("model") for message in messages[::-1]] + [values.get("model")]
    return next((name for name in named if isinstance(name, str) and name), None)


def provider_and_name(model: str) -> tuple[str | None, str]:
    """What stands before the first slash names the provider; a name without a slash names none."""
    provider, slash, name = model.partition("/")
    return (provider, name) if slash and name else (None, model)


def no_model(example: str) -> Fail:
    message = f'This agent has no model configured; give it one in lobu.toml, as in model = "{example}".'
    return Fail(TurnError.NO_MODEL_CONFIGURED, message)


def _fits(field: "Field[Any]", value: Any) -> bool:
    if field.type == list[str] | None or field.type == list[str]:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if field.type in (int, float):
        number = isinstance(value, int if field.type is int else int | float) and not isinstance(value, bool)
        return number and field.metadata.get(LEAST, 0) <= value < float("inf")
    return isinstance(value, dict if field.type == Json else field.type)  # type: ignore[arg-type]

"""An agent's rules: deadlines, what is tried again after which failure, and guardrails. Pure data, kept as plain JSON.

Written from lobu.toml into the agent's row, read back by the conversation actor (deadlines, failure) and by the edge
(guardrails). Must not know where it came from. Reading is lenient about unknown keys, since a row may have been written
by a newer version during a rolling deploy; it is strict about values, since a deadline that is not one is no deadline.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import attrs

Json = dict[str, Any]
OnFailure = Literal["fail", "retry"]

MAX_DEADLINE_SECONDS = 30 * 86_400.0
MAX_ATTEMPTS = 20
GUARDRAIL_KINDS = ("pattern",)


class PolicyError(ValueError):
    """A value that no policy may have. `key` is its name; the message completes the sentence "`key` …"."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key} {reason}")
        self.key = key
        self.reason = reason


def _positive_seconds(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PolicyError(attribute.name, "must be a number of seconds")
    if not 0 < value <= MAX_DEADLINE_SECONDS:  # false for NaN too
        raise PolicyError(attribute.name, f"must be more than 0 and at most {MAX_DEADLINE_SECONDS:.0f} seconds")


def _fail_or_retry(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in ("fail", "retry"):
        raise PolicyError(attribute.name, 'must be "fail" or "retry"')


def _attempts(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_ATTEMPTS:
        raise PolicyError(attribute.name, f"must be a whole number from 1 to {MAX_ATTEMPTS}")


def _seconds(default: float) -> float:
    value: float = attrs.field(default=default, validator=_positive_seconds)
    return value


def _known(kind: type, value: object, name: str) -> Json:
    """The entries of `value` that `kind` has a field for."""
    if not isinstance(value, Mapping):
        raise PolicyError(name, "must be a table")
    names = {field.name for field in attrs.fields(kind)}
    return {key: item for key, item in value.items() if key in names}


@attrs.frozen
class Deadlines:
    """How long each thing may take, in seconds. Each clock has an error code of its own.

    `question_seconds` runs alone: while a person is asked, every other clock stands still.
    """

    startup_seconds: float = _seconds(10)
    first_output_seconds: float = _seconds(120)
    progress_seconds: float = _seconds(300)
    heartbeat_seconds: float = _seconds(15)
    tool_seconds: float = _seconds(600)
    turn_seconds: float = _seconds(1800)
    question_seconds: float = _seconds(86_400)

    @classmethod
    def from_json(cls, value: object) -> Deadlines:
        """Absent keys take their defaults. Raises PolicyError."""
        return cls(**_known(cls, value, "deadlines"))

    def to_json(self) -> dict[str, float]:
        return attrs.asdict(self)


@attrs.frozen
class FailurePolicy:
    """What happens to a turn when its worker crashes, its time runs out, or its host is lost.

    `max_attempts` counts the first one. Before attempt n + 1 the actor waits `backoff_seconds(n)`.
    """

    crash: OnFailure = attrs.field(default="fail", validator=_fail_or_retry)
    timeout: OnFailure = attrs.field(default="retry", validator=_fail_or_retry)
    host_lost: OnFailure = attrs.field(default="retry", validator=_fail_or_retry)
    max_attempts: int = attrs.field(default=2, validator=_attempts)
    retry_backoff_seconds: float = _seconds(1)
    retry_backoff_max_seconds: float = _seconds(30)

    @classmethod
    def from_json(cls, value: object) -> FailurePolicy:
        """Absent keys take their defaults. Raises PolicyError."""
        return cls(**_known(cls, value, "failure"))

    def to_json(self) -> Json:
        return attrs.asdict(self)

    def may_retry(self, rule: OnFailure, failures: int) -> bool:
        """Whether another attempt follows after `failures` failed ones, under `rule` (one of this policy's three)."""
        return rule == "retry" and failures < self.max_attempts

    def backoff_seconds(self, failures: int) -> float:
        """The wait after the `failures`-th failed attempt (from 1): doubles each time, up to the maximum."""
        doublings = min(max(failures - 1, 0), MAX_ATTEMPTS)
        return min(self.retry_backoff_seconds * float(1 << doublings), self.retry_backoff_max_seconds)


def _guardrail_kind(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in GUARDRAIL_KINDS:
        raise PolicyError(attribute.name, f"must be one of: {', '.join(GUARDRAIL_KINDS)}")


def _regular_expression(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not value:
        raise PolicyError(attribute.name, "must be a regular expression")
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise PolicyError(attribute.name, f"is not a valid regular expression ({error})") from error


def _sentence(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not value:
        raise PolicyError(attribute.name, "must be a text that is not empty")


@attrs.frozen
class Guardrail:
    """A check on what comes in. `pattern`: a message in which the expression is found anywhere is refused."""

    kind: str = attrs.field(validator=_guardrail_kind)
    pattern: str = attrs.field(validator=_regular_expression)
    message: str = attrs.field(default="Not allowed.", validator=_sentence)

    @classmethod
    def from_json(cls, value: object) -> Guardrail:
        """Raises PolicyError."""
        known = _known(cls, value, "guardrails")
        for name in ("kind", "pattern"):
            if name not in known:
                raise PolicyError(name, "is missing")
        return cls(**known)

    def to_json(self) -> Json:
        return attrs.asdict(self)


@attrs.frozen
class AgentPolicy:
    """All of an agent's rules, as they stand in the `policy` of its record."""

    deadlines: Deadlines = attrs.field(factory=Deadlines)
    failure: FailurePolicy = attrs.field(factory=FailurePolicy)
    guardrails: tuple[Guardrail, ...] = ()

    @classmethod
    def from_json(cls, value: object) -> AgentPolicy:
        """Absent parts take their defaults. Raises PolicyError."""
        known = _known(cls, value, "policy")
        guardrails = known.get("guardrails", ())
        if not isinstance(guardrails, list | tuple):
            raise PolicyError("guardrails", "must be a list")
        return cls(
            deadlines=Deadlines.from_json(known.get("deadlines", {})),
            failure=FailurePolicy.from_json(known.get("failure", {})),
            guardrails=tuple(Guardrail.from_json(item) for item in guardrails),
        )

    def to_json(self) -> Json:
        return {
            "deadlines": self.deadlines.to_json(),
            "failure": self.failure.to_json(),
            "guardrails": [guardrail.to_json() for guardrail in self.guardrails],
        }

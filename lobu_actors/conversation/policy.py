"""An agent's rules: deadlines, what is tried again after which failure, and guardrails. Pure data, kept as plain JSON.

Written from lobu.toml into the agent's row, read back by the conversation actor (deadlines, failure) and by the edge
(guardrails). Must not know where it came from. Reading is lenient about unknown keys, since a row may have been written
by a newer version during a rolling deploy; it is strict about values, since a deadline that is not one is no deadline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs
import re2

Json = dict[str, Any]
OnFailure = Literal["fail", "retry"]

MAX_DEADLINE_SECONDS = 30 * 86_400.0
MAX_ATTEMPTS = 20
GUARDRAIL_KINDS = ("pattern", "command")
MAX_PATTERN_CHARS = 10_000
MAX_GUARDRAIL_SECONDS = 60.0
_PATTERN_MEMORY_BYTES = 1 << 20


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


def compile_pattern(pattern: str) -> Any:
    """A pattern's automaton, whose search takes time linear in the text, whatever both are. Raises re2.error."""
    options = re2.Options()
    options.max_mem = _PATTERN_MEMORY_BYTES
    options.log_errors = False
    options.never_capture = True
    return re2.compile(pattern, options)


def _regular_expression(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not value:
        raise PolicyError(attribute.name, "must be a regular expression")
    if len(value) > MAX_PATTERN_CHARS:
        raise PolicyError(attribute.name, f"must have at most {MAX_PATTERN_CHARS} characters")
    try:
        compile_pattern(value)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise PolicyError(attribute.name, f"is not a valid regular expression of RE2 ({reason})") from error


def _sentence(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not value:
        raise PolicyError(attribute.name, "must be a text that is not empty")


def _texts(value: object) -> object:
    return tuple(value) if isinstance(value, list | tuple) else value


def _arguments(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple) or not all(isinstance(item, str) and "\0" not in item for item in value):
        raise PolicyError(attribute.name, "must be a list of texts, the program first")


def _guardrail_seconds(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_GUARDRAIL_SECONDS:
        raise PolicyError(attribute.name, f"must be more than 0 and at most {MAX_GUARDRAIL_SECONDS:.0f} seconds")


@attrs.frozen
class Guardrail:
    """A check on what comes in; what it trips on is refused with `message`.

    `pattern`: trips when the expression (RE2's syntax) is found anywhere in the message. `command`: a program that gets
    the message on stdin; exit 0 passes, exit 1 trips with the first line of its stdout, anything else is broken.
    """

    kind: str = attrs.field(validator=_guardrail_kind)
    pattern: str | None = attrs.field(default=None, validator=_regular_expression)
    message: str = attrs.field(default="Not allowed.", validator=_sentence)
    command: tuple[str, ...] = attrs.field(default=(), converter=_texts, validator=_arguments)
    timeout_seconds: float = attrs.field(default=5.0, validator=_guardrail_seconds)

    def __attrs_post_init__(self) -> None:
        if (self.pattern is not None) != (self.kind == "pattern"):
            raise PolicyError("pattern", "is missing" if self.kind == "pattern" else "does not go with this kind")
        if bool(self.command) != (self.kind == "command"):
            raise PolicyError("command", "is missing" if self.kind == "command" else "does not go with this kind")

    @classmethod
    def from_json(cls, value: object) -> Guardrail:
        """Raises PolicyError."""
        known = _known(cls, value, "guardrails")
        if "kind" not in known:
            raise PolicyError("kind", "is missing")
        return cls(**known)

    def to_json(self) -> Json:
        return attrs.asdict(self) | {"command": list(self.command)}


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

"""How an agent's end is judged, what it is told of before, what words for a failure mean: pure."""

from __future__ import annotations

import pytest

from lobu_actors.agents import provider_errors
from lobu_actors.agents.acp.outcome import failure_of_error, failure_of_stop
from lobu_actors.agents.acp.settings import read
from lobu_actors.worker import Fail

AUTH, QUOTA, DOWN, REFUSED = "PROVIDER_AUTH", "PROVIDER_QUOTA", "PROVIDER_UNAVAILABLE", "PROVIDER_REFUSED"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('401: {"message": "made up", "type": "x"}', AUTH), ("API Error: 401 Unauthorized", AUTH),
        ("Incorrect API key provided", AUTH), ("please log in first", AUTH),
        ('429: {"type": "rate_limit_error"}', QUOTA), ("You exceeded your current quota", QUOTA),
        ("Rate limit reached for requests", QUOTA), ("your credit balance is too low", QUOTA),
        ('{"error": {"code": "insufficient_quota", "message": "m"}}', QUOTA),
        ("503: {}", DOWN), ("terminated", DOWN), ("fetch failed", DOWN), ("529 overloaded", DOWN), ("", DOWN),
        ('400: {"code": "context_length_exceeded"}', REFUSED), ("maximum context length exceeded", REFUSED),
        ("Provider finish_reason: content_filter", REFUSED),
        ("listening on 127.0.0.1:4010 failed", DOWN), ("took 500ms", DOWN), ("v4.0.1", DOWN),
    ],
)  # fmt: skip
def test_a_failure_in_words_has_its_code(text: str, code: str) -> None:
    assert provider_errors.of_text(text).code == code


def test_what_is_said_of_a_key_stays_in_the_log() -> None:
    assert "sk-123" not in provider_errors.of_text("401: Incorrect API key: sk-123").message


@pytest.mark.parametrize(
    ("reason", "said", "did", "code"),
    [
        ("end_turn", "x", False, None), ("end_turn", "", True, None), ("max_tokens", "x", False, None),
        ("end_turn", "", False, "AGENT_EMPTY_REPLY"), ("max_tokens", "", False, "AGENT_EMPTY_REPLY"),
        ("refusal", "No.", False, REFUSED), ("refusal", "", False, REFUSED), ("refusal", "Error 401", False, AUTH),
        ("max_turn_requests", "x", True, "TOO_MANY_STEPS"), ("cancelled", "x", True, "WORKER_FAILED"),
        ("news", "x", True, "WORKER_FAILED"), ("end_turn", "half. cut: 503", False, DOWN),
        ("end_turn", "cut: " + "and on " * 200, False, None),
    ],
)  # fmt: skip
def test_an_end_is_a_reply_or_not(reason: str, said: str, did: bool, code: str | None) -> None:
    failure = failure_of_stop(reason, said, did, "cut: ")
    assert (failure and failure.code) == code


def test_errors_of_the_protocol() -> None:
    assert failure_of_error(-32000, "Authentication required", None).code == AUTH
    assert failure_of_error(-32603, "Internal error", {"details": "429 Too Many Requests"}).code == QUOTA
    assert failure_of_error(-32603, "Internal error", "unexpected status 401 Unauthorized").code == AUTH


@pytest.mark.parametrize("values", [{"failure_pattern": "("}, {"mode": 5}, {"mcp": "x"}, {"start_seconds": -1}])
def test_wrong_settings_are_named(values: dict[str, object]) -> None:
    with pytest.raises(Fail) as failure:
        read(values)
    assert next(iter(values)) in str(failure.value)

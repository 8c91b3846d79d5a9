"""The message that begins a new session, and what of it an edge and an actor must agree on. Pure."""

from __future__ import annotations

NEW_SESSION = "/new"
STARTING_FRESH = "Starting fresh"
CARRY_SUMMARY = "carrySummary"  # true in its payload: the next session's runs are told what was said in this one


def begins_session(content: str) -> bool:
    """Whether a message is no message for a worker, but asks for a new session."""
    return content.strip() == NEW_SESSION


def provider_of(model: str | None) -> str | None:
    """`provider` of a model that is named `provider/model`; None when it names none."""
    provider, slash, name = (model or "").partition("/")
    return provider if slash and provider and name else None

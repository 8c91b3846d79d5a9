"""Restart intensity of one conversation's workers, as of an OTP supervisor. Pure."""

from __future__ import annotations

from lobu_actors.conversation.state import State


def in_crash_loop(state: State, now: float) -> bool:
    """Too many crashes within the window."""
    recent = [at for at in state.crashes if at > now - state.limits.crash_loop_seconds]
    return len(recent) > state.limits.crash_loop_max

"""Run tokens: how a worker says which run it is when it calls an edge. Made by the host that gives the run to it.

Signed with the same keys as conversation tokens, for another audience: neither opens the other's door. A token names
one run of one conversation and lives no longer than that run may.
"""

from __future__ import annotations

import math

import msgspec

from edge.tokens import InvalidToken, JwtKeys
from lobu_actors.contract.ids import ConversationRef

AUDIENCE = "lobu-run"
_CLAIMS = ("org", "agt", "cnv", "run")


class RunClaims(msgspec.Struct, frozen=True):
    ref: ConversationRef
    run_id: str


def sign_run(keys: JwtKeys, ref: ConversationRef, run_id: str, lifetime_seconds: float) -> str:
    names = (ref.organization_id, ref.agent_id, ref.conversation_id, run_id)
    token, _ = keys.encode(dict(zip(_CLAIMS, names, strict=True)), AUDIENCE, math.ceil(lifetime_seconds))
    return token


def verify_run(keys: JwtKeys, token: str, leeway_seconds: int = 0) -> RunClaims:
    """Raises InvalidToken or ExpiredToken."""
    claims = keys.decode(token, AUDIENCE, _CLAIMS, leeway_seconds)
    names = [claims[name] for name in _CLAIMS]
    if not all(isinstance(name, str) and name for name in names):
        raise InvalidToken("claims are not names")
    return RunClaims(ConversationRef(*names[:3]), names[3])

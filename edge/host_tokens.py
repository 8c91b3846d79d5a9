"""Host tokens: how two processes of a cluster prove to each other that they belong to it.

Signed with the same keys as conversation tokens, for another audience: neither opens the other's door.
"""

from __future__ import annotations

from edge.tokens import ExpiredToken, InvalidToken, JwtKeys
from lobu_actors.gateway.link.auth import TOKEN_SECONDS, HostClaims

AUDIENCE = "lobu-link"
LEEWAY_SECONDS = 30  # clocks of two hosts differ
_CLAIMS = ("snd", "rcv", "nnc")


class JwtHostTokens:
    """Implements `gateway.link.auth.HostTokens`."""

    def __init__(self, keys: JwtKeys) -> None:
        self._keys = keys

    def sign(self, claims: HostClaims) -> str:
        names = (claims.sender, claims.receiver, claims.nonce)
        token, _ = self._keys.encode(dict(zip(_CLAIMS, names, strict=True)), AUDIENCE, TOKEN_SECONDS)
        return token

    def verify(self, token: str) -> HostClaims | None:
        try:
            claims = self._keys.decode(token, AUDIENCE, _CLAIMS, LEEWAY_SECONDS)
        except (InvalidToken, ExpiredToken):
            return None
        names = [claims[name] for name in _CLAIMS]
        return HostClaims(*names) if all(isinstance(name, str) and name for name in names) else None

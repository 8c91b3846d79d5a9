"""Who is at the other end: host tokens, as a link needs them. How they are signed is said where the keys are.

Both ends prove that they have a key of the cluster: the client by a token in its request, the server by one in its
welcome. Each names both hosts, so that it is of no use at a third, and the server's repeats the client's nonce, so that
it is of no use again.
"""

from __future__ import annotations

import secrets
from typing import Protocol

import msgspec

TOKEN_SECONDS = 60  # from making a token to its being checked; clocks of two hosts may differ by some more


class HostClaims(msgspec.Struct, frozen=True):
    sender: str
    receiver: str
    nonce: str


class HostTokens(Protocol):
    def sign(self, claims: HostClaims) -> str:
        """A token that lives for TOKEN_SECONDS."""
        ...

    def verify(self, token: str) -> HostClaims | None:
        """None: not one of the cluster's, changed, or too old."""
        ...


def new_nonce() -> str:
    return secrets.token_urlsafe(16)


def bearer(headers: list[tuple[bytes, bytes]]) -> str | None:
    """The token of a request, as `Authorization: Bearer …`."""
    for name, value in headers:
        if name.lower() == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].decode("ascii", "replace").strip()
    return None

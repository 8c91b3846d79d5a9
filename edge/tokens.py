"""Signed conversation tokens and API keys: making and checking. Pure; knows neither HTTP nor the store.

A token is a JWT with a fixed algorithm, bound to one conversation. Its `aud` keeps it apart from the tokens that
workers carry, so neither opens the other's door. Rotation: put the new secret first; the old ones still verify.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

import attrs
import jwt
import msgspec
from jwt.algorithms import HMACAlgorithm
from jwt.utils import base64url_encode

from lobu_actors.contract.ids import ConversationRef

ALGORITHM = "HS256"
ISSUER = "lobu"
AUDIENCE = "lobu-conversation"
MIN_SECRET_BYTES = 32
MAX_TOKEN_CHARS = 4096
API_KEY_PREFIX = "lobu_"

_COMMON = ("exp", "iat", "aud", "iss")
_CLAIMS = ("org", "agt", "cnv", "sub")


class InvalidToken(Exception):
    """Not a token of ours, or one that was changed. The message says no more than that."""


class ExpiredToken(Exception):
    """It was ours, and its time is over."""


class TokenClaims(msgspec.Struct, frozen=True):
    ref: ConversationRef
    user_id: str
    expires_at: float  # epoch seconds


def _check_keys(_: Any, __: Any, keys: tuple[tuple[str, bytes], ...]) -> None:
    if not keys:
        raise ValueError("at least one signing secret is needed")
    if len({kid for kid, _ in keys}) != len(keys):
        raise ValueError("two signing secrets have the same key id")
    for kid, secret in keys:
        if not kid or len(kid) > 64:
            raise ValueError("a key id is 1 to 64 characters")
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"signing secret {kid!r} is shorter than {MIN_SECRET_BYTES} bytes")


class _Signer:
    """`jwt.encode` for one key, with what is the same for all tokens done once: each run has a token made for it."""

    def __init__(self, kid: str, secret: bytes) -> None:
        self._algorithm = HMACAlgorithm(HMACAlgorithm.SHA256)
        self._key = self._algorithm.prepare_key(secret)
        self._head = base64url_encode(json.dumps({"alg": ALGORITHM, "typ": "JWT", "kid": kid}).encode())

    def sign(self, claims: dict[str, Any]) -> str:
        signed = self._head + b"." + base64url_encode(json.dumps(claims).encode())
        return (signed + b"." + base64url_encode(self._algorithm.sign(signed, self._key))).decode()


@attrs.frozen(repr=False)
class JwtKeys:
    """Ordered (key id, secret): the first signs, all verify. Raises ValueError for a weak or ambiguous set."""

    keys: tuple[tuple[str, bytes], ...] = attrs.field(validator=_check_keys)
    _signer: _Signer = attrs.field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_signer", _Signer(*self.keys[0]))

    @classmethod
    def from_secrets(cls, texts: Sequence[str]) -> JwtKeys:
        """Key ids are derived from the secrets, so that every host names them alike."""
        raw = [text.encode() for text in texts]
        return cls(tuple((hashlib.sha256(b"kid:" + secret).hexdigest()[:12], secret) for secret in raw))

    def __repr__(self) -> str:
        return f"JwtKeys({', '.join(kid for kid, _ in self.keys)})"

    def sign(self, ref: ConversationRef, user_id: str, lifetime_seconds: int) -> tuple[str, int]:
        """The token, and when it ends (epoch milliseconds)."""
        claims = {
            "sub": user_id,
            "org": ref.organization_id,
            "agt": ref.agent_id,
            "cnv": ref.conversation_id,
        }
        return self.encode(claims, AUDIENCE, lifetime_seconds)

    def verify(self, token: str, leeway_seconds: int = 0) -> TokenClaims:
        """Raises InvalidToken or ExpiredToken."""
        claims = self.decode(token, AUDIENCE, _CLAIMS, leeway_seconds)
        names = [claims[name] for name in _CLAIMS]
        if not all(isinstance(name, str) and name for name in names):
            raise InvalidToken("claims are not names")
        return TokenClaims(ConversationRef(*names[:3]), names[3], float(claims["exp"]))

    def encode(self, claims: dict[str, Any], audience: str, lifetime_seconds: int) -> tuple[str, int]:
        """A token with these claims for one audience, and when it ends (epoch milliseconds)."""
        issued = int(time.time())
        common = {"iss": ISSUER, "aud": audience, "iat": issued, "exp": issued + lifetime_seconds}
        return self._signer.sign(common | claims), (issued + lifetime_seconds) * 1000

    def decode(self, token: str, audience: str, claims: Sequence[str], leeway_seconds: int) -> dict[str, Any]:
        """The claims of a token for this audience, which has all of `claims`. Raises InvalidToken or ExpiredToken."""
        if len(token) > MAX_TOKEN_CHARS or not token.isascii():
            raise InvalidToken("not a token")
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            secret = next((secret for known, secret in self.keys if known == kid), None)
            if secret is None:
                raise InvalidToken("unknown key id")
            return jwt.decode(
                token,
                secret,
                algorithms=[ALGORITHM],
                audience=audience,
                issuer=ISSUER,
                leeway=leeway_seconds,
                options={"require": [*_COMMON, *claims]},
            )
        except jwt.ExpiredSignatureError:
            raise ExpiredToken("the token's time is over") from None
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise InvalidToken("not a token of ours") from None


def new_api_key() -> tuple[str, str]:
    """A fresh key, to be shown once, and the hash under which it is stored."""
    key = API_KEY_PREFIX + secrets.token_urlsafe(32)
    return key, api_key_hash(key)


def api_key_hash(key: str) -> str:
    # A plain hash suffices: the key is 256 random bits, so there is nothing to guess.
    return hashlib.sha256(key.encode()).hexdigest()

"""One request and its answer: which failure is which error, and what the server said. Must not know any route."""

from __future__ import annotations

import json
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

import httpx

from lobu_actors.client.errors import RequestRefused, ServerAway, UnexpectedAnswer

Json = dict[str, Any]

CONNECT_SECONDS = 5.0
REQUEST_SECONDS = 30.0
# Servers send a comment at least every 15 s; three of them missing means that the connection is dead.
SILENCE_SECONDS = 45.0
MAX_ERROR_BODY_BYTES = 64 * 1024

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def new_http(base_url: str, key: str | None) -> httpx.AsyncClient:
    """Raises UnexpectedAnswer for what is no http(s) URL."""
    try:
        parts = urlsplit(base_url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise UnexpectedAnswer(f"{base_url!r} is no address of a gateway; use one like http://127.0.0.1:8787.")
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    # Loading the certificate store takes longer than everything else here, and plain http has no use for it.
    verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if parts.scheme == "http" else ssl.create_default_context()
    return httpx.AsyncClient(
        base_url=base_url.rstrip("/"),
        headers=headers,
        verify=verify,
        timeout=httpx.Timeout(REQUEST_SECONDS, connect=CONNECT_SECONDS),
        trust_env=parts.hostname not in _LOOPBACK,
    )


def away(http: httpx.AsyncClient, error: httpx.TransportError) -> ServerAway:
    base = str(http.base_url).rstrip("/")
    if isinstance(error, httpx.ConnectError):
        return ServerAway(_not_connected(base, error))
    if isinstance(error, httpx.TimeoutException):
        return ServerAway(f"{base} did not answer in time")
    return ServerAway(f"the connection to {base} broke ({type(error).__name__})")


def _not_connected(base: str, error: BaseException) -> str:
    """What the layers below say is at the end of the chain of causes."""
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case ssl.SSLCertVerificationError():
                return f"the certificate of {base} is not trusted ({cause.verify_message})"
            case ssl.SSLError():
                return f"what answers at {base} does not speak TLS"
            case socket.gaierror():
                return f"the host of {base} is not known"
        cause = cause.__cause__ or cause.__context__
    return f"nothing answers at {base}"


def decode_answer(response: httpx.Response) -> Json:
    """The JSON object of a success. Raises RequestRefused, UnexpectedAnswer."""
    if not response.is_success:
        raise refusal(response)
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise UnexpectedAnswer(f"{response.url} answered with something else than a JSON object; is it a Lobu gateway?")
    return answer


def refusal(response: httpx.Response) -> RequestRefused:
    """The error of an unsuccessful answer; it quotes the body if that was read."""
    status = response.status_code
    code, message = f"HTTP_{status}", f"{response.url} answered {status} {response.reason_phrase}".rstrip()
    try:
        body = json.loads(response.content)
    except (ValueError, httpx.ResponseNotRead):
        body = None
    if isinstance(body, dict):
        code = body["code"] if isinstance(body.get("code"), str) else code
        message = body["error"] if isinstance(body.get("error"), str) and body["error"] else message
    return RequestRefused(status, code, message)


async def read_error_body(response: httpx.Response) -> None:
    """Read a short error body so that `refusal` can quote it; a long or endless one is left alone."""
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) <= MAX_ERROR_BODY_BYTES:
        await response.aread()
    else:
        await response.aclose()


def retry_after_seconds(response: httpx.Response) -> float | None:
    """What `Retry-After` asks for, in its form of seconds."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) < 7 else None

"""Whether a request that a browser sent with its cookie comes from our own pages. Knows no credentials.

Cookies do not tell ports apart, and SameSite does not tell sibling hosts apart; the Origin does both.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from edge.errors import Refusal
from edge.request import opening
from edge.settings import EdgeSettings
from lobu_actors.contract.errors import ApiError

_PORTS = {"http": 80, "https": 443}
_READING = frozenset({"GET", "HEAD"})


def is_https(settings: EdgeSettings) -> bool:
    return settings.public_url is not None and settings.public_url.startswith("https:")


def require_own_origin(settings: EdgeSettings) -> None:
    """Raises Refusal 403 unless the current request's Origin is ours, or, for reading without one, the browser says so.

    Browsers send no Origin when a page reads from its own site, but Sec-Fetch-Site; and over plain HTTP, to another
    machine, not even that, but the Referer that our pages ask for. A page can leave that away, and forge neither.
    """
    origin = opening().headers.get("Origin")
    if origin is None:
        site = opening().headers.get("Sec-Fetch-Site")
        own = _is_own(opening().headers.get("Referer", ""), settings) if site is None else site == "same-origin"
        if opening().method in _READING and own:
            return
    elif _is_own(origin, settings):
        return
    sentence = "A request with this server's cookie must come from this server's own pages."
    raise Refusal(403, ApiError.ORIGIN_REFUSED, sentence)


def _is_own(origin: str, settings: EdgeSettings) -> bool:
    place = _place(origin)
    if place is None:
        return False
    scheme, host, port = place
    if settings.public_url is not None and place == _place(settings.public_url):
        return True
    if is_https(settings) and scheme != "https":
        return False  # a page that anybody on the way could have changed
    # Behind something that ends TLS our own scheme is not the page's, so the Host is read by the scheme of the Origin.
    own = _place(f"{scheme}://{opening().headers.get('Host', '')}")
    return own is not None and own[1:] == (host, port)


def _place(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None for what has none, as the Origin `null`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None:
        return None
    return parts.scheme, parts.hostname, port or _PORTS[parts.scheme]

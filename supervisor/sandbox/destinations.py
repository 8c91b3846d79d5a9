"""Where a sandboxed worker may connect to: entries of the settings, and what of a request agrees with them. Pure.

Owns what a host name may look like and which addresses are nobody's business. A name is compared as text with what was
listed, after lower-casing and nothing else: a spelling that needs interpretation (an address in decimal, hex or octal,
percent signs, a user in front, Unicode, a dot at the end) agrees with nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

import msgspec

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

DISPATCHER = "dispatcher"  # the word in the settings that stands for this host's own gateway
MAX_NAME_CHARS = 253
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)  # a last label like this makes the whole an address
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


class Refused(Exception):
    """A request that is not let through; the text is one sentence for whoever asked."""


class Destination(msgspec.Struct, frozen=True):
    """One entry. `host` is a name, `*.` and a name, or an address in its one canonical form.

    `private`: the name may lead to addresses that are not public. An address that is listed is meant as it is.
    """

    host: str
    port: int
    private: bool = False

    def agrees(self, host: str, port: int) -> bool:
        if port != self.port:
            return False
        if self.host.startswith("*."):
            return host.endswith(self.host[1:]) and len(host) >= len(self.host)
        return host == self.host


def parse_destination(text: str, *, private: bool = False) -> Destination:
    """`host:port`, `*.host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`. Raises ValueError, which says why."""
    host, port = split_authority(text.lower())
    if host.startswith("*."):
        if "." not in host[2:] or not is_name(host[2:]):
            raise ValueError("a `*.` stands before a name of at least two parts")
    elif not is_name(host) and canonical_address(host) is None:
        raise ValueError("its host is neither a plain name nor an address in its usual form")
    return Destination(host, port, private or canonical_address(host) is not None)


def split_authority(text: str) -> tuple[str, int]:
    """Host, without the brackets of an IPv6 address, and port. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not _PORT.fullmatch(port) or int(port) > 65_535:
        raise ValueError("it must be a host, a colon and a port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError("brackets are for IPv6 addresses")
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets")
    return host, int(port)


def is_name(host: str) -> bool:
    """A host name in lower case that no resolver can take for an address."""
    return (
        len(host) <= MAX_NAME_CHARS
        and _NAME.fullmatch(host) is not None
        and _NUMBER.fullmatch(host.rpartition(".")[2]) is None
    )


def canonical_address(host: str) -> IPAddress | None:
    """The address, when `host` is exactly how Python would write it."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return address if str(address) == host else None


def is_public(address: IPAddress) -> bool:
    """False for loopback, private, link-local (cloud metadata), multicast, reserved; also for those within IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and any(address in network for network in _NAT64):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.teredo is not None or address.scope_id is not None or int(address) >> 32 == 0:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class Allowlist:
    """What one worker type may reach. Raises Refused from both methods."""

    def __init__(self, destinations: Iterable[Destination]) -> None:
        self._destinations = tuple(destinations)

    def find(self, authority: str) -> tuple[str, int, bool]:
        """Host, port and whether private addresses are meant, of what a client asked for."""
        try:
            host, port = split_authority(authority.lower())
        except ValueError as error:
            raise Refused(f"The destination cannot be read: {error}.") from error
        if not authority.isascii() or not (is_name(host) or canonical_address(host) is not None):
            raise Refused("The destination's host is neither a plain name nor an address in its usual form.")
        agreeing = [destination for destination in self._destinations if destination.agrees(host, port)]
        if not agreeing:
            raise Refused(f"{host}:{port} is not on this worker's list of destinations.")
        return host, port, any(destination.private for destination in agreeing)

    @staticmethod
    def check_addresses(host: str, addresses: Iterable[str], private: bool) -> list[str]:
        """The addresses to connect to, as they were resolved. One that is not public spoils all of them."""
        found = list(addresses)
        for address in found:
            if not private and not is_public(ipaddress.ip_address(address)):
                raise Refused(f"{host} leads to {address}, which is not public.")
        return found

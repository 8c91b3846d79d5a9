"""Where a sandboxed worker may connect to: what can be listed, what agrees with it, which addresses are public."""

from __future__ import annotations

import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.sandbox.destinations import Allowlist, Destination, Refused, is_name, is_public, parse_destination


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("api.example.com:443", Destination("api.example.com", 443)),
        ("API.Example.com:443", Destination("api.example.com", 443)),
        ("*.example.com:443", Destination("*.example.com", 443)),
        ("10.0.0.5:8080", Destination("10.0.0.5", 8080, private=True)),
        ("[fd00::1]:80", Destination("fd00::1", 80, private=True)),
        ("xn--bcher-kva.example:443", Destination("xn--bcher-kva.example", 443)),
    ],
)
def test_what_can_be_listed(text: str, expected: Destination) -> None:
    assert parse_destination(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "example.com", ":443", "example.com:", "example.com:0", "example.com:65536", "example.com:0443",
        "example.com:443:1", "https://example.com:443", "*:443", "*.com:443", "*.*.com:443", "a.*.com:443",
        "example.com.:443", "exa mple.com:443", "bücher.example:443", "user@example.com:443", "example.com/a:443",
        "127.1:80", "2130706433:80", "0x7f000001:80", "0177.0.0.1:80", "fd00::1:80", "[fd00::01]:80", "[1.2.3.4]:80",
        "-a.example.com:443", "a-.example.com:443", "a..example.com:443", "%61.example.com:443",
    ],
)  # fmt: skip
def test_what_cannot_be_listed(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_destination(text)


def test_what_agrees_with_a_list() -> None:
    allowed = Allowlist(
        [
            parse_destination("a.example.com:443"),
            parse_destination("*.wild.test:80"),
            parse_destination("inner.test:1", private=True),
        ]
    )
    assert allowed.find("A.example.COM:443") == ("a.example.com", 443, False)
    assert allowed.find("x.wild.test:80") == ("x.wild.test", 80, False)
    assert allowed.find("x.y.wild.test:80") == ("x.y.wild.test", 80, False)
    assert allowed.find("inner.test:1") == ("inner.test", 1, True)
    for refused in ("a.example.com:80", "example.com:443", "b.a.example.com:443", "wild.test:80", ".wild.test:80"):
        with pytest.raises(Refused):
            allowed.find(refused)


PRIVATE = (
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.0.0.1", "192.168.1.1",
    "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:10.0.0.1",
    "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "fe80::1", "fc00::1",
    "fd00:ec2::254", "ff02::1", "2001:db8::1", "fe80::1%1",
)  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "64:ff9b::101:101"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.text(alphabet="0123456789abcdefxX.", min_size=1, max_size=30))
def test_no_name_is_an_address_to_the_c_library(text: str) -> None:
    """`inet_aton` reads the old spellings, too: decimal, hex, octal, short."""
    host = text.lower()
    try:
        packed = socket.inet_aton(host)
    except OSError:
        return
    assert struct.unpack("!I", packed)
    assert not is_name(host)

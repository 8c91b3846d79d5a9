"""Cookies that are read without Quart are read as it reads them; everything else is left to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.http import parse_cookie

from edge.direct import plain_cookies

PIECES = ["a", "lobu_session", "=", ";", "; ", " ", '"', ",", "\\", "\t", "x.y-z_1", "\xe4", "%20", "\\054"]


@pytest.mark.parametrize(
    ("header", "cookies"),
    [
        (b"", {}),
        (b"lobu_session=a.b-c_d", {"lobu_session": "a.b-c_d"}),
        (b"a=1; lobu_session=x;b=", {"a": "1", "lobu_session": "x", "b": ""}),
        (b"a=1; a=2", {"a": "1"}),
        (b"a=b=c", {"a": "b=c"}),
        (b'a="1"', None),
        (b"a=1,2", None),
        (b"a=1 2", None),
        (b"a", None),
        (b"a=1;", None),
        (b"a=\xe4", None),
    ],
)
def test_cookies(header: bytes, cookies: dict[str, str] | None) -> None:
    assert plain_cookies(header) == cookies


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_what_is_read_is_read_as_by_quart(pieces: list[str]) -> None:
    header = "".join(pieces)
    cookies = plain_cookies(header.encode("latin1"))
    if cookies is not None:
        assert cookies == parse_cookie(header).to_dict()

"""A head that is read without h11 is read as h11 reads it; everything else is left to h11."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.request_head import END_OF_HEAD, RequestHead, read_head

GOOD = b"POST /api/v1/agents/k/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nX-Padded: \t a b\t \r\n\r\n"


def by_h11(data: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]], bool] | None:
    """What `data` is as a head, and whether the connection goes on; None: it is none, or more than one."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=4096)
    connection.receive_data(data)
    try:
        request = connection.next_event()
        if not isinstance(request, h11.Request) or connection.trailing_data[0]:
            return None
    except h11.RemoteProtocolError:
        return None
    closes = any(name == b"connection" and value.lower() == b"close" for name, value in request.headers)
    goes_on = request.http_version == b"1.1" and not closes
    return request.method, request.target, list(request.headers), goes_on


def same(head: RequestHead, data: bytes) -> bool:
    return (head.method, head.target, head.headers, head.goes_on) == by_h11(data)


def test_a_head_is_read() -> None:
    head = read_head(GOOD)
    assert head is not None
    assert same(head, GOOD)
    assert head.headers[-1] == (b"x-padded", b"a b")
    assert head.length == 7


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(GOOD.replace(b"Host: x", b"Host: x\r\nConnection: close"), id="said"),
        pytest.param(GOOD.replace(b"Host: x", b"Host: x\r\nConnection: Close"), id="said louder"),
        pytest.param(GOOD.replace(b"/1.1", b"/1.0"), id="an older HTTP"),
        pytest.param(GOOD.replace(b"/1.1", b"/1.0").replace(b"Host: x\r\n", b""), id="an older HTTP, no host"),
        pytest.param(GOOD.replace(b"/1.1\r\n", b"/1.0\r\nConnection: keep-alive\r\n"), id="an older HTTP's wish"),
    ],
)
def test_a_connection_that_is_to_end(data: bytes) -> None:
    head = read_head(data)
    assert head is not None
    assert not head.goes_on
    assert same(head, data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(GOOD[:-1], id="not whole"),
        pytest.param(GOOD[:60], id="a piece of it"),
        pytest.param(GOOD + GOOD, id="another one behind it"),
        pytest.param(GOOD.replace(b"HTTP/1.1", b"HTTP/0.9"), id="an older HTTP"),
        pytest.param(GOOD.replace(b"HTTP/1.1", b"HTTP/1.2"), id="a newer HTTP"),
        pytest.param(GOOD.replace(b"Host: x\r\n", b""), id="no host"),
        pytest.param(GOOD.replace(b"Host: x", b"Host: x\r\nHost: y"), id="two hosts"),
        pytest.param(GOOD.replace(b"Host: x", b"Host: x\r\nConnection: keep-alive, close"), id="a list of wishes"),
        pytest.param(
            GOOD.replace(b"Host: x", b"Host: x\r\nConnection: upgrade\r\nUpgrade: h2c"), id="wants another protocol"
        ),
        pytest.param(GOOD.replace(b"Host: x", b"Host: x\r\nTransfer-Encoding: chunked"), id="two lengths"),
        pytest.param(GOOD.replace(b"Content-Length: 7", b"Transfer-Encoding: chunked"), id="no length"),
        pytest.param(GOOD.replace(b"Host: x", b"Host: x\r\nContent-Length: 7"), id="its length twice"),
        pytest.param(GOOD.replace(b": 7", b": +7"), id="a length that is none"),
        pytest.param(GOOD.replace(b": 7", b": " + b"9" * 30), id="a length without an end"),
        pytest.param(GOOD.replace(b"Host: x", b"Host : x"), id="a space before the colon"),
        pytest.param(GOOD.replace(b"a b", b"a\r\n b"), id="a folded line"),
        pytest.param(GOOD.replace(b"a b", b"a\x00b"), id="NUL"),
        pytest.param(GOOD.replace(b"\r\n", b"\n"), id="lines without CR"),
        pytest.param(b"\r" + GOOD, id="something in front"),
        pytest.param(GOOD.replace(b" HTTP", b"  HTTP"), id="two spaces"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_is_anything_else_is_left_to_h11(data: bytes) -> None:
    assert read_head(data) is None


SPOILT = st.tuples(
    st.integers(0, len(GOOD)),
    st.integers(0, 3),
    st.sampled_from(
        [
            b"",
            b"\r",
            b"\n",
            b"\r\n",
            b" ",
            b":",
            b"\x00",
            b"\xe4",
            b"\t",
            b"1",
            b"Host: y\r\n",
            b"connection: close\r\n",
            b"0",
        ]
    )
    | st.binary(min_size=1, max_size=1),
)


@given(SPOILT, SPOILT)
def test_what_is_read_h11_reads_the_same(first: tuple[int, int, bytes], second: tuple[int, int, bytes]) -> None:
    data = GOOD
    for place, without, instead in (first, second):
        data = data[:place] + instead + data[place + without :]
    end = data.find(END_OF_HEAD)
    if end >= 0:
        data = data[: end + len(END_OF_HEAD)]
    head = read_head(data)
    assert head is None or same(head, data)

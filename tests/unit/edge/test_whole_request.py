"""What is read without h11 is read as h11 reads it; everything else is left to h11."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.whole_request import WholeRequest, read_whole

HEAD_BYTES = 4096
GOOD = (
    b"POST /api/v1/agents/k/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nX-Padded: \t a b\t \r\n\r\n"
    + b'{"a":1}'
)


def by_h11(data: bytes) -> tuple[bytes, list[tuple[bytes, bytes]], bytes] | None:
    """The one request that `data` is, on a connection that goes on; None: it is not."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
    connection.receive_data(data)
    request, body = None, b""
    try:
        while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
    except h11.RemoteProtocolError:
        return None
    if request is None or connection.their_state is not h11.DONE or connection.trailing_data[0]:
        return None
    return request.target, list(request.headers), body


def test_a_whole_request_is_read() -> None:
    read = read_whole(GOOD, HEAD_BYTES)
    assert isinstance(read, WholeRequest)
    assert (read.target, read.headers, read.body) == by_h11(GOOD)
    assert read.headers[-1] == (b"x-padded", b"a b")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(GOOD[:-1], id="not whole"),
        pytest.param(GOOD[:60], id="not even its head"),
        pytest.param(GOOD + b"\r\n", id="something behind it"),
        pytest.param(GOOD + GOOD, id="another one behind it"),
        pytest.param(GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"), id="an older HTTP"),
        pytest.param(GOOD.replace(b"Host: x\r\n", b""), id="no host"),
        pytest.param(GOOD.replace(b"Host: x", b"Host: x\r\nHost: y"), id="two hosts"),
        pytest.param(GOOD.replace(b"Host: x", b"Host: x\r\nConnection: close"), id="wants the end"),
        pytest.param(GOOD.replace(b"Host: x", b"Host: x\r\nConnection: keep-alive, close"), id="wants the end, too"),
        pytest.param(
            GOOD.replace(b"Host: x", b"Host: x\r\nConnection: upgrade\r\nUpgrade: h2c"), id="wants another protocol"
        ),
        pytest.param(GOOD.replace(b"Host: x", b"Host: x\r\nTransfer-Encoding: chunked"), id="two lengths"),
        pytest.param(GOOD.replace(b"Host: x", b"Host: x\r\nContent-Length: 7"), id="its length twice"),
        pytest.param(GOOD.replace(b": 7", b": +7"), id="a length that is none"),
        pytest.param(GOOD.replace(b"Host: x", b"Host : x"), id="a space before the colon"),
        pytest.param(GOOD.replace(b"a b", b"a\r\n b"), id="a folded line"),
        pytest.param(GOOD.replace(b"a b", b"a\x00b"), id="NUL"),
        pytest.param(GOOD.replace(b"\r\n", b"\n"), id="lines without CR"),
        pytest.param(GOOD.replace(b"a b", b"a" * HEAD_BYTES), id="a head that is too large"),
        pytest.param(b"\r" + GOOD, id="something in front"),
        pytest.param(GOOD.replace(b" HTTP", b"  HTTP"), id="two spaces"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_is_anything_else_is_left_to_h11(data: bytes) -> None:
    assert read_whole(data, HEAD_BYTES) is None


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
        ]
    ),
)


@given(SPOILT, SPOILT)
def test_what_is_read_h11_reads_the_same(first: tuple[int, int, bytes], second: tuple[int, int, bytes]) -> None:
    data = GOOD
    for place, without, instead in (first, second):
        data = data[:place] + instead + data[place + without :]
    read = read_whole(data, HEAD_BYTES)
    if read is not None:
        assert (read.target, read.headers, read.body) == by_h11(data)

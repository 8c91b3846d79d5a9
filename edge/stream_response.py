"""The head of a response that goes on until its reader or its events end. Knows nothing of what is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from quart import Response
from quart.wrappers.response import ResponseBody

from edge import sse


class PulledBody(ResponseBody):
    """A body that gives its next piece when the connection has room for it; the rest is `__anext__`'s.

    Not a generator, so there is no cleanup that could need to wait.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: type, exc_value: BaseException, tb: TracebackType) -> None:
        pass

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        raise NotImplementedError


def stream_response(body: ResponseBody | bytes) -> Response:
    response = Response(body, content_type=sse.CONTENT_TYPE)
    response.timeout = None
    response.headers.update(sse.HEADERS)
    return response

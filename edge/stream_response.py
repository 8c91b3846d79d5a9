"""The head of a response that goes on until its reader or its events end. Knows nothing of what is sent."""

from __future__ import annotations

from quart import Response
from quart.wrappers.response import ResponseBody

from edge import sse


def stream_response(body: ResponseBody | bytes) -> Response:
    response = Response(body, content_type=sse.CONTENT_TYPE)
    response.timeout = None
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    response.headers["X-Content-Type-Options"] = "nosniff"
    # A pipelined second request would hide that the reader went away.
    response.headers["Connection"] = "close"
    return response

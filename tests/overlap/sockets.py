"""The WebSocket of a conversation at one host: read, or asked one thing and closed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from tests.system.lobu_process import LobuRun
from tests.system.sse_client import Answer, Broken, Conversation

Json = dict[str, Any]
CALL_SECONDS = 60.0
HANDSHAKE_SECONDS = 5.0
CALLS = {"messages": "send", "cancel": "cancel", "answer": "answer", "reset": "reset"}


class Refused(Exception):
    """There was no socket, but this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@asynccontextmanager
async def opened(
    run: LobuRun, conversation: Conversation, since: str | None = None
) -> AsyncIterator[WebSocketConnection]:
    """Raises Refused, and Broken when it cannot be made or is cut, in whatever way."""
    path = f"{conversation.path}/socket" + (f"?since={since}" if since else "")
    headers = [(b"authorization", f"Bearer {run.admin_key}".encode())]
    place = urlsplit(run.url)
    try:
        stream = await trio.open_tcp_stream(str(place.hostname), place.port or 0)
    except OSError as error:
        raise Broken("no connection") from error
    failed: list[BaseException] = []
    try:
        # The stream is closed here: the library leaves it open when the other side closes first.
        async with stream, trio.open_nursery() as nursery:
            # And it waits on for the answer to its handshake when the connection is cut behind that.
            with trio.fail_after(HANDSHAKE_SECONDS):
                socket = await wrap_client_stream(nursery, stream, "test", path, extra_headers=headers)
            yield socket
            nursery.cancel_scope.cancel()
    except* (ConnectionRejected, ConnectionClosed, HandshakeError, trio.TooSlowError) as group:
        failed += group.exceptions
    for error in failed:
        if isinstance(error, ConnectionRejected):
            raise Refused(error.status_code)
    if failed:
        raise Broken("cut meanwhile")


def words_of(path: str, body: Json) -> Json | None:
    """What a POST to this address of a conversation is as a call; None: it is none."""
    name = path.rpartition("/")[2]
    if name not in CALLS:
        return None
    words = {"call": CALLS[name], **body}
    return words | {"questionId": path.split("/")[2]} if name == "answer" else words


async def ask(run: LobuRun, conversation: Conversation, words: Json) -> Answer:
    """What the server says to a call, or to the opening. Raises Broken, trio.TooSlowError."""
    with trio.fail_after(CALL_SECONDS):
        try:
            async with opened(run, conversation) as socket:
                await socket.send_message(json.dumps({**words, "ref": "it"}))
                while True:
                    said = json.loads(await socket.get_message())
                    if "reply" in said:
                        return Answer(said["status"], said["body"])
        except Refused as refused:
            return Answer(refused.status, {})

"""A conversation's files: what came in with messages and what workers left with their replies. Read only.

Bytes are streamed piece by piece, as fast as the reader takes them, and always as a download: what a stranger sent or
a worker wrote must not run as a page of this origin.
"""

from __future__ import annotations

from urllib.parse import quote

import trio
from quart import Blueprint, Response, request

from edge.errors import Refusal, invalid_field
from edge.responses import json_response
from edge.services import Services
from edge.stream_response import PulledBody
from edge.wire import Json
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.ids import is_id
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.protocol import FileStore
from lobu_actors.store.records import FileRecord

_AGAIN_SECONDS = 0.2
_DEFAULT_LISTED = 100


class FileBody(PulledBody):
    """A file's bytes as a response body. One that cannot be read on ends early, which its stated length shows."""

    def __init__(self, store: FileStore, file: FileRecord, patience_seconds: float) -> None:
        self._store = store
        self._file = file
        self._patience_seconds = patience_seconds
        self._next = 0

    async def __anext__(self) -> bytes:
        if self._next >= self._file.chunks:
            raise StopAsyncIteration
        number, self._next = self._next, self._next + 1
        data = await self._read(number)
        if data is None:
            raise StoreUnavailable("the file was deleted while it was read")
        return data

    async def _read(self, number: int) -> bytes | None:
        file = self._file
        with trio.move_on_after(self._patience_seconds):
            while True:
                try:
                    return await self._store.read_chunk(file.ref.organization_id, file.file_id, number)
                except StoreUnavailable:
                    await trio.sleep(_AGAIN_SECONDS)
        raise StoreUnavailable("the file could not be read in time")


def routes(services: Services) -> Blueprint:
    blueprint = Blueprint("files", __name__)

    @blueprint.get("/api/v1/agents/<key>/files")
    async def list_files(key: str) -> Response:
        _, conversation = await services.conversation(key)
        files = await services.store.list_files(conversation.ref, limit=_limit(services.settings.max_listed_files))
        return json_response({"success": True, "files": [_shown(file) for file in files]})

    @blueprint.get("/api/v1/agents/<key>/files/<file_id>")
    async def download(key: str, file_id: str) -> Response:
        _, conversation = await services.conversation(key)
        file = await services.store.find_file(conversation.ref, file_id) if is_id(file_id) else None
        if file is None:
            raise Refusal(404, ApiError.FILE_NOT_FOUND, "This conversation has no such file.")
        body = FileBody(services.store, file, services.settings.store_patience_seconds)
        response = Response(b"" if request.method == "HEAD" else body)
        response.timeout = None  # a slow reader is one that reads; a stalled one is cut by its connection
        response.content_type = file.media_type
        response.headers["Content-Length"] = str(file.size)
        response.headers["Content-Disposition"] = content_disposition(file.name)
        response.headers["Cache-Control"] = "private, no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
        return response

    return blueprint


def content_disposition(name: str) -> str:
    """A download under this name: in ASCII for old readers, in full for all others (RFC 6266)."""
    ascii_name = "".join(char if 32 <= ord(char) < 127 and char not in '"\\%' else "_" for char in name)
    return f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(name, safe='')}"


def _limit(most: int) -> int:
    text = request.args.get("limit")
    if text is None:
        return min(_DEFAULT_LISTED, most)
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 1:
        raise invalid_field("limit", "`limit` must be a whole number of at least 1.")
    return min(int(text), most)


def _shown(file: FileRecord) -> Json:
    return {
        "fileId": file.file_id,
        "name": file.name,
        "mediaType": file.media_type,
        "size": file.size,
        "direction": file.direction.value,
        "messageId": file.message_id,
        "createdAt": int(file.created_at.timestamp() * 1000),
    }

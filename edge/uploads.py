"""Messages that come as multipart/form-data: fields in memory within the message limit, files straight into the store.

The form: the message's fields as plain fields (`content`, `messageId`, …), or as one JSON object in `payload` (plain
fields win), and any number of `files`. It is read as it arrives; at no time is more than a few pieces in memory, since
the body is only taken from the connection as fast as it is stored. Every wait for more of it is bounded, and the whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio
from quart import request
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData, Preamble

from edge.body import require_unencoded
from edge.errors import Refusal
from edge.incoming import Incoming
from edge.request import parse_object
from edge.settings import EdgeSettings
from edge.wire import Json
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.text import is_storable
from lobu_actors.store.protocol import FileStore
from lobu_actors.store.records import FILES_KEY

MULTIPART = "multipart/form-data"
MAX_FIELDS = 50
_FILE_FIELDS = ("files", "files[]")
_PIECE_BYTES = 64 * 1024
_BUFFER_BYTES = 4 * _PIECE_BYTES  # of what is not yet told to be head or body of a part
_PART_HEAD_BYTES = 2048  # allowed for each part on top of its contents
_RETRY_SECONDS = 5


def is_upload() -> bool:
    """Whether the current request is a form with files."""
    return (request.mimetype or "").lower() == MULTIPART


class Uploads:
    """Receives uploads, at most `max_uploads` at a time."""

    def __init__(self, store: FileStore, settings: EdgeSettings) -> None:
        self._store = store
        self._settings = settings
        self._open = 0

    @asynccontextmanager
    async def receive(self, ref: ConversationRef) -> AsyncIterator[tuple[Json, tuple[str, ...]]]:
        """The message's fields with its `files` among them, and their ids: sealed, no turn's yet.

        At the end of the block, what no turn has is deleted. Raises Refusal, StoreUnavailable and werkzeug's 408.
        """
        settings = self._settings
        require_unencoded()
        if self._open >= settings.max_uploads:
            sentence = "Too many uploads are under way here; try again."
            raise Refusal(429, ApiError.TOO_MANY_UPLOADS, sentence, retry_after_seconds=_RETRY_SECONDS)
        allowed = settings.upload_total_max_bytes + settings.max_message_bytes
        allowed += (settings.upload_max_files + MAX_FIELDS) * _PART_HEAD_BYTES
        if (request.content_length or 0) > allowed:
            raise _too_large(f"Files may have {settings.upload_total_max_bytes} bytes together.")
        incoming = Incoming(self._store, ref, settings.accept_seconds)
        form = _Form(incoming, settings)
        self._open += 1
        try:
            await _read(form, settings, allowed)
            body = form.body()
            if incoming.files:
                body[FILES_KEY] = incoming.files
            yield body, incoming.file_ids
        finally:
            self._open -= 1
            await incoming.discard()


async def _read(form: _Form, settings: EdgeSettings, allowed: int) -> None:
    decoder = MultipartDecoder(_boundary(), _BUFFER_BYTES)
    taken = 0
    with trio.move_on_after(settings.upload_seconds) as scope:
        while data := await _next_data(settings.body_seconds):
            taken += len(data)
            if taken > allowed:
                raise _too_large("The form is larger than its files and fields may be.")
            for start in range(0, len(data), _PIECE_BYTES):
                await _decode(decoder, data[start : start + _PIECE_BYTES], form)
        await _decode(decoder, None, form)
    if scope.cancelled_caught:
        raise RequestTimeout


async def _next_data(seconds: float) -> bytes | None:
    """What came of the body since; None at its end. Raises werkzeug's 408."""
    with trio.move_on_after(seconds):
        return await anext(request.body, None)
    raise RequestTimeout


async def _decode(decoder: MultipartDecoder, data: bytes | None, form: _Form) -> None:
    """Give `data` (None: the end) to the decoder, and what it makes of it to the form."""
    try:
        decoder.receive_data(data)
        event = decoder.next_event()
        while not isinstance(event, NeedData | Epilogue):
            await form.take(event)
            event = decoder.next_event()
    except RequestEntityTooLarge:
        raise _wrong("a part has no end of its head, or there is no part at all") from None
    except (ValueError, UnicodeDecodeError):
        raise _wrong("it ends too early, or a part has no Content-Disposition") from None
    if form.parts and decoder.state.name == "EPILOGUE":
        decoder.buffer.clear()  # what stands behind the last boundary means nothing


def _boundary() -> bytes:
    boundary = request.mimetype_params.get("boundary", "")
    if not 1 <= len(boundary) <= 70 or not boundary.isascii():
        raise _wrong("its Content-Type has no boundary")
    return boundary.encode()


@attrs.define
class _Form:
    """What was read so far; takes the decoder's events one by one."""

    incoming: Incoming
    settings: EdgeSettings
    parts: int = 0
    fields: dict[str, str] = attrs.field(factory=dict)
    _name: str | None = None  # of the field under way; None: it is a file, or to be left out
    _file: bool = False
    _value: bytearray = attrs.field(factory=bytearray)
    _field_bytes: int = 0
    _file_bytes: int = 0
    _files: int = 0

    def body(self) -> Json:
        """The message as one object. Raises Refusal."""
        fields = dict(self.fields)
        payload = fields.pop("payload", None)
        body = {} if payload is None else parse_object(payload.encode(), self.settings)
        return body | fields

    async def take(self, event: Event) -> None:
        match event:
            case Preamble():
                return
            case File():
                await self._begin_file(event)
            case Field():
                self._begin_field(event)
            case Data(data, more_data):
                await (self._file_data if self._file else self._field_data)(data, more_data)

    async def _begin_file(self, part: File) -> None:
        self.parts += 1
        if part.name not in _FILE_FIELDS:
            raise _wrong(f"a file is in the field {part.name!r}; files go into `files`")
        self._file, self._name = bool(part.filename), None
        if not self._file:
            return  # a browser's field for files in which none was chosen
        self._files += 1
        if self._files > self.settings.upload_max_files:
            raise _too_large(f"A message may bring {self.settings.upload_max_files} files.")
        await self.incoming.begin(part.filename, part.headers.get("content-type"))

    def _begin_field(self, part: Field) -> None:
        self.parts += 1
        self._file, self._name, self._value = False, part.name, bytearray()
        if not part.name:
            raise _wrong("a part has no name")
        if part.name in _FILE_FIELDS:
            raise _wrong("`files` must be files, each with a filename")
        if part.name in self.fields:
            raise _wrong(f"the field {part.name!r} stands there twice")
        if len(self.fields) >= MAX_FIELDS:
            raise _wrong(f"it has more than {MAX_FIELDS} fields")

    async def _file_data(self, data: bytes, more_data: bool) -> None:
        self._file_bytes += len(data)
        size = await self.incoming.write(data)
        if size > self.settings.upload_file_max_bytes:
            raise _too_large(f"A file may have {self.settings.upload_file_max_bytes} bytes.")
        if self._file_bytes > self.settings.upload_total_max_bytes:
            raise _too_large(f"Files may have {self.settings.upload_total_max_bytes} bytes together.")
        if not more_data:
            await self.incoming.end()

    async def _field_data(self, data: bytes, more_data: bool) -> None:
        if self._name is None:
            if data:
                raise _wrong("a file has no filename")
            return
        self._field_bytes += len(data)
        if self._field_bytes > self.settings.max_message_bytes:
            raise _too_large(f"The fields of a message may have {self.settings.max_message_bytes} bytes together.")
        self._value += data
        if more_data:
            return
        try:
            text = self._value.decode()
        except UnicodeDecodeError:
            raise Refusal(400, ApiError.INVALID_TEXT, f"The field {self._name!r} is not UTF-8.") from None
        if not is_storable(text) or not is_storable(self._name):
            raise Refusal(400, ApiError.INVALID_TEXT, "The form holds a NUL character or a lone surrogate.")
        self.fields[self._name] = text


def _wrong(what: str) -> Refusal:
    return Refusal(400, ApiError.INVALID_MULTIPART, f"The multipart form is not right: {what}.")


def _too_large(sentence: str) -> Refusal:
    return Refusal(413, ApiError.BODY_TOO_LARGE, sentence)

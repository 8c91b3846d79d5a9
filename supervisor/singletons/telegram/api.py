"""The Bot API as this program uses it: one call at a time, every answer sorted by what the caller should do about it.

The token is part of each address; so no address, and no error of the HTTP client, goes into a log or an exception.
"""

from __future__ import annotations

from typing import Any

import attrs
import httpx

from supervisor.singletons.telegram.updates import UPDATE_KINDS

CALL_SECONDS = 10.0
ANSWER_SECONDS = 5.0  # beyond what a poll asks the server to wait
MAX_RETRY_SECONDS = 3600.0
_SAID_CHARS = 200


class TelegramError(Exception):
    """Base. Says nothing secret."""


class Unreachable(TelegramError):
    """No usable answer: no connection, it broke, the server failed, or what came is not the Bot API's."""


class Refused(TelegramError):
    """The Bot API said no."""

    def __init__(self, code: int, description: str, *, migrated_to: int | None = None) -> None:
        super().__init__(f"{code}: {description}")
        self.code = code
        self.migrated_to = migrated_to  # the chat goes on under this id


class TooMany(TelegramError):
    """Wait `retry_after` seconds first."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many requests; asked to wait for {retry_after:g} s")
        self.retry_after = retry_after


@attrs.frozen
class TelegramApi:
    """`client` must not follow redirects. `base_url` has no slash at its end."""

    client: httpx.AsyncClient
    base_url: str
    token: str = attrs.field(repr=False)

    async def get_me(self) -> dict[str, Any]:
        found = await self._call("getMe", {})
        if not isinstance(found, dict):
            raise Unreachable("getMe did not give a user")
        return found

    async def get_updates(self, offset: int | None, timeout_seconds: int) -> list[Any]:
        """With an offset, all updates before it are confirmed: they never come again."""
        parameters: dict[str, Any] = {"timeout": timeout_seconds, "allowed_updates": UPDATE_KINDS}
        if offset is not None:
            parameters["offset"] = offset
        found = await self._call("getUpdates", parameters, timeout_seconds + ANSWER_SECONDS)
        if not isinstance(found, list):
            raise Unreachable("getUpdates did not give a list")
        return found

    async def send_message(self, chat_id: int, text: str, topic: int | None, reply_to: int | None) -> None:
        parameters: dict[str, Any] = {"chat_id": chat_id, "text": text}
        if topic is not None:
            parameters["message_thread_id"] = topic
        if reply_to is not None:
            parameters["reply_parameters"] = {"message_id": reply_to, "allow_sending_without_reply": True}
        await self._call("sendMessage", parameters)

    async def send_typing(self, chat_id: int, topic: int | None) -> None:
        parameters: dict[str, Any] = {"chat_id": chat_id, "action": "typing"}
        if topic is not None:
            parameters["message_thread_id"] = topic
        await self._call("sendChatAction", parameters)

    async def _call(self, method: str, parameters: dict[str, Any], seconds: float = CALL_SECONDS) -> Any:
        try:
            response = await self.client.post(
                f"{self.base_url}/bot{self.token}/{method}", json=parameters, timeout=seconds
            )
            body = response.json()
        except httpx.HTTPError as error:
            raise Unreachable(f"{method}: {type(error).__name__}") from None
        except (ValueError, RecursionError):
            raise Unreachable(f"{method}: the answer is not JSON") from None
        if not isinstance(body, dict):
            raise Unreachable(f"{method}: the answer is not an object")
        if body.get("ok") is True:
            return body.get("result")
        raise _error(method, response.status_code, body)


def _error(method: str, status: int, body: dict[str, Any]) -> TelegramError:
    code = body.get("error_code")
    code = code if isinstance(code, int) else status
    parameters = body.get("parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    if code == 429:
        wait = parameters.get("retry_after")
        wait = float(wait) if isinstance(wait, int | float) and wait >= 0 else 1.0
        return TooMany(min(wait, MAX_RETRY_SECONDS))
    if not 400 <= code < 500:
        return Unreachable(f"{method}: {code}")
    migrated = parameters.get("migrate_to_chat_id")
    return Refused(
        code, str(body.get("description"))[:_SAID_CHARS], migrated_to=migrated if isinstance(migrated, int) else None
    )

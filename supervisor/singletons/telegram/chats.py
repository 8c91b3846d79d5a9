"""Telegram's chats as the delivery sees them. Owns which of the Bot API's refusals are for ever."""

from __future__ import annotations

from typing import Any

from lobu_actors.contract.events import Data, EventType
from supervisor.singletons.delivery import ChatRefused, ChatUnavailable
from supervisor.singletons.telegram.api import Refused, TelegramApi, TelegramError, TooMany
from supervisor.singletons.telegram.text import split, told

# A bad token or another poller is no matter of the chat: the poller says it, and the operator can mend it.
_NOT_THE_CHATS = frozenset({401, 404, 409})


class TelegramChats:
    """Implements `ChatPlatform`."""

    name = "telegram"

    def __init__(self, api: TelegramApi) -> None:
        self._api = api
        self._moved: dict[int, int] = {}  # groups that became supergroups, under another id

    def parts(self, event_type: EventType | None, data: Data) -> list[str]:
        return split(str(data["text"]) if event_type is None else told(event_type, data))

    async def send(self, address: dict[str, Any], text: str, *, first: bool) -> None:
        chat_id = address["chatId"]
        reply_to = address.get("replyTo") if first else None
        try:
            try:
                await self._send(chat_id, text, address.get("topic"), reply_to)
            except Refused as error:
                if error.migrated_to is None or chat_id in self._moved:
                    raise
                self._moved[chat_id] = error.migrated_to
                await self._send(chat_id, text, address.get("topic"), None)
        except TooMany as error:
            raise ChatUnavailable(str(error), error.retry_after) from None
        except Refused as error:
            if error.code in _NOT_THE_CHATS:
                raise ChatUnavailable(str(error)) from None
            raise ChatRefused(str(error)) from None
        except TelegramError as error:
            raise ChatUnavailable(str(error)) from None

    async def _send(self, chat_id: int, text: str, topic: int | None, reply_to: int | None) -> None:
        await self._api.send_message(self._moved.get(chat_id, chat_id), text, topic, reply_to)

    async def show_typing(self, address: dict[str, Any]) -> None:
        try:
            await self._api.send_typing(address["chatId"], address.get("topic"))
        except TelegramError as error:
            raise ChatUnavailable(str(error)) from None

"""Updates as the Bot API describes them, and what each means. Pure: no wire, no store.

A chat is one conversation for each bot (and each topic of a forum): `<agentId>_telegram:<chat id>_<organizationId>_<bot
id>[:<topic id>]`. Everybody in a group talks in the same one; who said what is in the turn's payload. The ids of a
message are made of the update's and the message's own, so an update that comes twice is the same turn.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from lobu_actors.contract.ids import ConversationRef, conversation_key
from lobu_actors.contract.text import storable

UPDATE_KINDS = ["message"]  # what is asked for: no edits, no channels, no buttons
# Contents of a message that a person sent and that are no text. What else there is (somebody joined, a pin) is not
# addressed to anybody.
_OTHER_CONTENTS = (
    "animation", "audio", "contact", "dice", "document", "game", "location", "paid_media", "photo", "poll", "sticker",
    "story", "venue", "video", "video_note", "voice",
)  # fmt: skip


class Meaning(StrEnum):
    TEXT = "text"
    NEW = "new"  # /new: a new session
    STOP = "stop"  # /stop: cancel what is owed
    START = "start"  # /start: what an app sends when a person opens the chat
    NOT_TEXT = "not-text"
    NOTHING = "nothing"  # not for this bot, or not from a person


_COMMANDS = {"/new": Meaning.NEW, "/stop": Meaning.STOP, "/start": Meaning.START}


class BadUpdate(Exception):
    """Not an update: it has no id, so it cannot even be skipped."""


class Update(msgspec.Struct, frozen=True):
    """One message to the bot. Where `meaning` is NOTHING, only `update_id` says something."""

    update_id: int
    meaning: Meaning
    chat_id: int = 0
    private: bool = False
    topic: int | None = None
    message_id: int = 0
    text: str = ""
    sender_id: int | None = None
    sender_name: str = ""

    @property
    def user_id(self) -> str:
        """The conversation's user: the chat."""
        return f"telegram:{self.chat_id}"

    @property
    def key(self) -> str:
        """The turn's message id, and the delivery's."""
        return f"telegram:{self.update_id}:{self.message_id}"

    @property
    def address(self) -> dict[str, Any]:
        """Where an answer goes. In a group it refers to the message."""
        found: dict[str, Any] = {"chatId": self.chat_id}
        if self.topic is not None:
            found["topic"] = self.topic
        if not self.private:
            found["replyTo"] = self.message_id
        return found

    @property
    def payload(self) -> dict[str, Any]:
        """What the worker is told beside the text."""
        return {
            "platform": "telegram",
            "chatId": self.chat_id,
            "chatType": "private" if self.private else "group",
            "senderId": self.sender_id,
            "senderName": self.sender_name,
            "platformMessageId": self.message_id,
        }

    def ref(self, organization_id: str, agent_id: str, bot_id: int) -> ConversationRef:
        thread = str(bot_id) if self.topic is None else f"{bot_id}:{self.topic}"
        return ConversationRef(
            organization_id, agent_id, conversation_key(agent_id, self.user_id, organization_id, thread)
        )


def parse_update(value: Any, bot_name: str) -> Update:
    """What is not understood means NOTHING. Raises BadUpdate."""
    update_id = _integer(value, "update_id")
    if update_id is None:
        raise BadUpdate("an update has no update_id")
    message = value.get("message")
    chat_id, message_id = _integer(_member(message, "chat"), "id"), _integer(message, "message_id")
    sender = _member(message, "from")
    if chat_id is None or message_id is None or sender.get("is_bot") is True:
        return Update(update_id, Meaning.NOTHING)
    text = message.get("text")
    name = " ".join(str(sender[part]) for part in ("first_name", "last_name") if sender.get(part))
    return Update(
        update_id=update_id,
        meaning=_meaning(text, message, bot_name),
        chat_id=chat_id,
        private=_member(message, "chat").get("type") == "private",
        topic=_integer(message, "message_thread_id") if message.get("is_topic_message") is True else None,
        message_id=message_id,
        text=storable(text) if isinstance(text, str) else "",
        sender_id=_integer(sender, "id"),
        sender_name=storable(name),
    )


def _meaning(text: object, message: dict[str, Any], bot_name: str) -> Meaning:
    if not isinstance(text, str):
        return Meaning.NOT_TEXT if any(kind in message for kind in _OTHER_CONTENTS) else Meaning.NOTHING
    if not text.strip():
        return Meaning.NOTHING
    if not text.startswith("/"):
        return Meaning.TEXT
    command, _, addressee = text.split(maxsplit=1)[0].partition("@")
    if addressee and addressee.lower() != bot_name.lower():
        return Meaning.NOTHING
    return _COMMANDS.get(command, Meaning.TEXT)


def _member(value: Any, name: str) -> dict[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _integer(value: Any, name: str) -> int | None:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, int) and not isinstance(found, bool) else None

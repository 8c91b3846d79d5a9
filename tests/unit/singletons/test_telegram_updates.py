"""What updates mean, and how their conversations and messages are called."""

from __future__ import annotations

from typing import Any

import pytest

from lobu_actors.contract.ids import is_conversation_key, is_id, is_message_id
from supervisor.singletons.telegram.poller import poll_timeout
from supervisor.singletons.telegram.updates import BadUpdate, Meaning, Update, parse_update

NAME = "lobu_bot"


def update(text: str | None = "hi", chat: int = 42, kind: str = "private", **more: Any) -> dict[str, Any]:
    sender = {"id": 7, "first_name": "Ann", "last_name": "Lee"}
    message = {"message_id": 3, "chat": {"id": chat, "type": kind}, "from": sender, **more}
    return {"update_id": 100, "message": message if text is None else {**message, "text": text}}


def parsed(value: dict[str, Any]) -> Update:
    return parse_update(value, NAME)


def test_names() -> None:
    private, group = parsed(update()), parsed(update(chat=-1001234, kind="supergroup"))
    topic = parsed(update(chat=-1001234, kind="supergroup", is_topic_message=True, message_thread_id=9))
    keys = [one.ref("acme", "echo", 555).conversation_id for one in (private, group, topic)]
    assert keys == [
        "echo_telegram:42_acme_555",
        "echo_telegram:-1001234_acme_555",
        "echo_telegram:-1001234_acme_555:9",
    ]
    assert all(map(is_conversation_key, keys))
    assert private.key == "telegram:100:3"
    assert is_message_id(private.key)
    assert is_id(group.user_id)


def test_where_an_answer_goes() -> None:
    assert parsed(update()).address == {"chatId": 42}
    assert parsed(update(chat=-1, kind="group")).address == {"chatId": -1, "replyTo": 3}
    topic = parsed(update(chat=-1, kind="supergroup", is_topic_message=True, message_thread_id=9))
    assert topic.address == {"chatId": -1, "replyTo": 3, "topic": 9}
    reply = parsed(update(chat=-1, kind="supergroup", message_thread_id=9))
    assert reply.address == {"chatId": -1, "replyTo": 3}, "a thread of replies is no topic"


def test_what_the_worker_is_told() -> None:
    assert parsed(update()).payload == {
        "platform": "telegram",
        "chatId": 42,
        "chatType": "private",
        "senderId": 7,
        "senderName": "Ann Lee",
        "platformMessageId": 3,
    }


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        (update("hello"), Meaning.TEXT),
        (update("/new"), Meaning.NEW),
        (update("/new@lobu_bot please"), Meaning.NEW),
        (update("/new@LOBU_bot"), Meaning.NEW),
        (update("/new@other_bot"), Meaning.NOTHING),
        (update("/stop"), Meaning.STOP),
        (update("/start deep-link"), Meaning.START),
        (update("/weather Oslo"), Meaning.TEXT),
        (update("/weather@other_bot Oslo"), Meaning.NOTHING),
        (update("/"), Meaning.TEXT),
        (update("  \n"), Meaning.NOTHING),
        (update(None, photo=[{"file_id": "x"}], caption="look"), Meaning.NOT_TEXT),
        (update(None, voice={}), Meaning.NOT_TEXT),
        (update(None, new_chat_members=[]), Meaning.NOTHING),
        (update(None, pinned_message={}), Meaning.NOTHING),
        ({"update_id": 1, "edited_message": {"text": "x"}}, Meaning.NOTHING),
        ({"update_id": 1, "message": "odd"}, Meaning.NOTHING),
        ({"update_id": 1, "message": {"text": "x"}}, Meaning.NOTHING),
        ({"update_id": 1}, Meaning.NOTHING),
    ],
)
def test_meanings(value: dict[str, Any], meaning: Meaning) -> None:
    assert parsed(value).meaning is meaning


def test_a_bot_is_no_person() -> None:
    value = update()
    value["message"]["from"]["is_bot"] = True
    assert parsed(value).meaning is Meaning.NOTHING


def test_what_no_store_can_hold_is_mended() -> None:
    assert parsed(update("a\0b\ud800")).text == "a\ufffdb\ufffd"


@pytest.mark.parametrize("value", [None, [], {}, {"update_id": "1"}, {"update_id": True}])
def test_without_an_id_it_is_no_update(value: Any) -> None:
    with pytest.raises(BadUpdate):
        parse_update(value, NAME)


@pytest.mark.parametrize(
    ("left", "most", "seconds"),
    [(5.0, 50, 4), (4.4, 50, 3), (2.0, 50, 1), (1.9, 50, None), (-1, 50, None), (99, 50, 50)],
)
def test_a_poll_ends_before_the_trust_does(left: float, most: int, seconds: int | None) -> None:
    assert poll_timeout(left, most) == seconds

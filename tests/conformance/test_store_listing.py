"""What a page lists: a user's conversations, and the turns of one. The same on both stores."""

from __future__ import annotations

from lobu_actors.contract import events
from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.store.listing_protocol import CONTENT_CHARS, TITLE_CHARS
from lobu_actors.store.question_records import NewQuestion
from lobu_actors.store.records import FinishRun, NewTurn, TurnEnd

ALL = 1_000_000


def named(name: str, organization: str = "acme") -> ConversationRef:
    return ConversationRef(organization, "echo", name)


async def listed(store, user: str = "ann", organization: str = "acme", *, limit: int = 10, newest: int = 10):
    found = await store.list_conversations_of_user(organization, user, limit=limit, newest=newest)
    return [(one.conversation.ref.conversation_id, one.title) for one in found]


async def send(store, ref: ConversationRef, content: str, turn_id: str) -> None:
    turn = NewTurn(ref, turn_id, f"m-{turn_id}", content)
    assert (await store.accept_turn(turn, max_owed=100)).created


async def test_a_user_sees_the_own_open_ones_in_the_own_organization(store):
    for organization in ("acme", "other"):
        await store.ensure_organization(organization)
    await store.open_conversation(named("a"), "ann")
    await store.open_conversation(named("b"), "bob")
    await store.open_conversation(named("c", "other"), "ann")
    await store.open_conversation(named("d"), "ann")
    assert await listed(store) == [("d", None), ("a", None)]
    assert await listed(store, "bob") == [("b", None)]
    assert await listed(store, "ann", "other") == [("c", None)]
    assert await listed(store, "carl") == []
    await store.mark_closing(named("d"))
    assert await listed(store) == [("a", None)]


async def test_the_last_active_comes_first_with_its_first_message(store, owner):
    await store.open_conversation(named("later"), "ann")
    first = await owner.accept("m1")
    assert await listed(store) == [(owner.ref.conversation_id, "hello"), ("later", None)]
    run_id = await owner.start(first)
    await send(store, named("later"), "x" * (TITLE_CHARS + 1), "t9")
    assert await listed(store) == [("later", "x" * TITLE_CHARS), (owner.ref.conversation_id, "hello")]
    await send(store, owner.ref, "another", "t8")
    assert await store.finish_run(owner.lease, ended(run_id, first)) is not None
    found = await store.list_conversations_of_user("acme", "ann", limit=10, newest=10)
    assert [(one.title, one.conversation.queued) for one in found] == [("hello", 1), ("x" * TITLE_CHARS, 1)]
    assert found[0].conversation == await store.find_conversation("acme", owner.ref.conversation_id)
    assert await listed(store, limit=1) == [(owner.ref.conversation_id, "hello")]
    assert [name for name, _ in await listed(store, newest=1)] == ["later"], "only the newest are looked at"


async def test_what_is_owed_is_listed_in_its_order(store, owner):
    first = await owner.accept("m1")
    await send(store, owner.ref, "y" * (CONTENT_CHARS + 1), "t2")
    await owner.start(first)
    one, two = await store.list_owed_turns(owner.ref, limit=10)
    assert (one.message_id, one.status, one.ending) == ("m1", TurnStatus.RUNNING, None)
    assert (two.message_id, two.status, two.attempt) == ("m-t2", TurnStatus.QUEUED, 1)
    assert two.content == "y" * CONTENT_CHARS
    assert [turn.message_id for turn in await store.list_owed_turns(owner.ref, limit=1)] == ["m1"]
    assert await store.list_owed_turns(named("no"), limit=10) == []
    assert await store.list_owed_turns(named(owner.ref.conversation_id, "other"), limit=10) == []


def ended(run_id: str, turn, text: str = "done") -> FinishRun:
    data = events.complete(turn.message_id, [turn.message_id], text, None, 1)
    ends = (TurnEnd(turn.turn_id, EventType.COMPLETE, data),)
    return FinishRun(run_id, RunStatus.COMPLETED, TurnStatus.COMPLETED, ends, attempt=1, text_offset=4)


async def reply(store, owner, message_id: str, text: str = "done", question: str | None = None) -> None:
    turn = await owner.accept(message_id)
    run_id = await owner.start(turn)
    if question is not None:
        data = events.question(question, "Go on?", ["yes"], message_id)
        asked = NewQuestion(
            question_id=question, worker_question_id="1", run_id=run_id, turn_id=turn.turn_id, prompt="Go on?",
            options=("yes",), data=data, attempt=1, text_offset=0,
        )  # fmt: skip
        assert await store.ask_question(owner.lease, asked) is not None
    assert await store.finish_run(owner.lease, ended(run_id, turn, text)) is not None


async def test_what_ended_is_listed_backwards_in_pages_with_its_questions(store, owner):
    for number in range(4):
        await reply(store, owner, f"m{number}", question=f"q{number}" if number == 2 else None)
    page = await store.list_ended_turns(owner.ref, before_seq=ALL, limit=2, max_bytes=ALL)
    assert [turn.message_id for turn in page] == ["m3", "m2"]
    assert page[0].ending.data["finalText"] == "done"
    assert page[0].ending.questions == ()
    assert [asked["questionId"] for asked in page[1].ending.questions] == ["q2"]
    assert page[1].status is TurnStatus.COMPLETED
    rest = await store.list_ended_turns(owner.ref, before_seq=page[-1].ending.seq, limit=9, max_bytes=ALL)
    assert [turn.message_id for turn in rest] == ["m1", "m0"]
    other = named(owner.ref.conversation_id, "other")
    assert await store.list_ended_turns(other, before_seq=ALL, limit=9, max_bytes=ALL) == []


async def test_large_replies_make_a_page_shorter_but_never_empty(store, owner):
    for number in range(3):
        # what the database cannot make smaller
        text = "".join(chr(0x4E00 + (n * n * 7 + number) % 20_000) for n in range(20_000))
        await reply(store, owner, f"m{number}", text)
    page = await store.list_ended_turns(owner.ref, before_seq=ALL, limit=9, max_bytes=100_000)
    assert 1 <= len(page) < 3
    page = await store.list_ended_turns(owner.ref, before_seq=ALL, limit=9, max_bytes=1)
    assert [turn.message_id for turn in page] == ["m2"]

"""How often a turn goes to the database, counted in the server's own log, and how often it writes to a socket.

What the host says on its own, whatever turns there are, is listed here by name, so that nothing new hides in it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from lobu_actors.store.embedded import EmbeddedServer
from lobu_actors.store.migrate import migrate
from lobu_actors.store.queries import query, query_names
from tests.conftest import TEST_SETTINGS, admin
from tests.system.conftest import Start, client_of
from tests.system.lobu_process import LobuRun, lobu_run, until
from tests.system.sse_client import Conversation, Transcript

TURNS = 20
WAKES_A_SECOND = 4  # of threads, by what has nothing to do with turns: twice what was seen
ON_ITS_OWN = {"count_owed", "find_loads", "find_owed", "find_overdue", "renew_host_unless_dead"}
ON_ITS_OWN |= {"prepare_session"}  # of one more connection, when more statements meet than ever before
# What a host says of turns that run just then, once a second, however many they are.
EACH_SECOND = {"extend_deadlines_if_lease_held", "find_held"}
_EXECUTED = re.compile(r"^<lobu[^>]*> LOG:  (?:execute \S+|statement): (.*?)(?=^<|\Z)", re.MULTILINE | re.DOTALL)


def _plain(statement: str) -> str:
    """Without what differs between a query's file and the server's log."""
    return " ".join(re.sub(r"%\(\w+\)s|\$\d+", "?", statement).replace("%%", "%").split())


NAMES = {_plain(query(name).decode()): name for name in query_names()}


class Log:
    def __init__(self, server: EmbeddedServer, folder: Path) -> None:
        self._server = server
        self._file = folder / ".lobu" / "postgres.log"

    async def mark(self, word: str) -> None:
        """A line in the log, behind all that was said before."""
        admin(self._server.url, f"SELECT '{word}'")
        await until(lambda: f"SELECT '{word}'" in self._text(), "the log has the mark")

    def between(self, one: str, other: str) -> Counter[str]:
        """Names of the queries, and the texts of what has no name."""
        _, _, behind = self._text().partition(f"SELECT '{one}'")
        part, _, _ = behind.partition(f"SELECT '{other}'")
        return Counter(NAMES.get(text := _plain(found[1]), text) for found in _EXECUTED.finditer(part))

    async def until_said(self, name: str) -> None:
        """Once more than until now."""
        plain = _plain(query(name).decode())

        def count() -> int:
            return sum(_plain(found[1]) == plain for found in _EXECUTED.finditer(self._text()))

        before = count()
        await until(lambda: count() > before, name)

    def _text(self) -> str:
        return self._file.read_text(errors="replace")


@pytest.fixture
async def log(server_folder: Path) -> AsyncIterator[tuple[LobuRun, Log]]:
    settings = {**TEST_SETTINGS, "log_statement": "all", "log_line_prefix": "<%a> ", "log_checkpoints": "off"}
    server = EmbeddedServer(server_folder, settings=settings)
    await server.start()
    try:
        await migrate(server.url)
        async with lobu_run(database_url=server.url) as run:
            yield run, Log(server, server_folder)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 30):
            await server.stop("immediate")


class Talk:
    """A conversation with a reader that is attached."""

    def __init__(self, conversation: Conversation, transcript: Transcript) -> None:
        self._conversation = conversation
        self._transcript = transcript

    async def turn(self, content: str) -> None:
        """Until the reader has its end."""
        message_id = await self._conversation.send(content)
        with trio.fail_after(30):
            while message_id not in self._transcript.terminals:
                await self._transcript.changed()


@asynccontextmanager
async def attached(conversation: Conversation) -> AsyncIterator[Talk]:
    transcript = Transcript()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transcript.follow, conversation, lambda: False)
        await transcript.changed()
        yield Talk(conversation, transcript)
        nursery.cancel_scope.cancel()


@pytest.fixture
async def talk(log: tuple[LobuRun, Log]) -> AsyncIterator[Talk]:
    client = client_of(log[0], keep=True)
    async with attached(await client.open()) as talk:
        yield talk
    await client.close()


async def test_a_turn_is_two_statements_and_no_notice(log: tuple[LobuRun, Log], talk: Talk) -> None:
    """Accept, which begins the run where a worker waits, and terminal: each a round trip and a transaction of its own;
    pieces of a reply cost none."""
    _, said = log
    await talk.turn("hello there")
    began = trio.current_time()
    await said.mark("begin")
    for number in range(TURNS):
        await talk.turn("hello there" if number % 2 else "stream 30 1")
    await said.mark("end")
    counted = said.between("begin", "end")
    seconds = trio.current_time() - began
    assert all(counted[name] <= seconds + 1 for name in EACH_SECOND), (counted, seconds)
    of_turns = {name: count for name, count in counted.items() if name not in ON_ITS_OWN | EACH_SECOND}
    # Who sends behind an end finds its actor at rest, or nearly, and the run begins with the message.
    assert of_turns.pop("start_runs_if_lease_held", 0) <= 1
    assert of_turns == {
        "accept_turns_if_open_and_begin_runs_if_lease_held": TURNS,
        "finish_runs_if_lease_held": TURNS,
    }


async def test_the_first_turn_of_a_conversation_adds_the_lease_and_what_an_actor_must_know(
    log: tuple[LobuRun, Log], talk: Talk
) -> None:
    _, said = log
    await said.mark("begin")
    await talk.turn("hello there")
    await said.mark("end")
    counted = said.between("begin", "end")
    others = ON_ITS_OWN | EACH_SECOND | {"read_events"}  # its reader's first look at the log, which may come late
    assert {name: count for name, count in counted.items() if name not in others} == {
        "find_agent": 1,
        "accept_turns_if_open_and_begin_runs_if_lease_held": 1,
        "acquire_lease_unless_held_by_live_host": 1,
        "load_activation": 1,
        "load_owed_if_lease_held": 1,
        "start_runs_if_lease_held": 1,
        "finish_runs_if_lease_held": 1,
    }


async def test_what_a_host_says_on_its_own_does_not_depend_on_turns(log: tuple[LobuRun, Log], talk: Talk) -> None:
    _, said = log
    await talk.turn("hello there")  # behind it, its reader has looked at the log
    await said.mark("begin")
    await said.until_said("renew_host_unless_dead")
    await said.mark("end")
    assert set(said.between("begin", "end")) <= ON_ITS_OWN


async def test_a_turn_is_one_write_to_its_worker_and_few_to_its_client(start_run: Start, tmp_path: Path) -> None:
    """To the client: the answer, the text, the end. No thread has a part in it."""
    counted = tmp_path / "writes"
    environment = {"COUNTED_WRITES": str(counted), "PYTHONPATH": str(Path(__file__).parents[2])}
    run = await start_run(program=(str(Path(__file__).with_name("counting_lobu.py")),), environment=environment)
    client = client_of(run, keep=True)
    async with attached(await client.open()) as talk:
        await talk.turn("hello")
        before, began = Counter(counted.read_text()), trio.current_time()
        for _ in range(TURNS):
            await talk.turn("hello")
        writes, seconds = Counter(counted.read_text()) - before, trio.current_time() - began
    await client.close()
    assert writes["w"] == TURNS
    assert writes["t"] < TURNS / 4 + WAKES_A_SECOND * seconds, "what the host does beside turns wakes one now and then"
    assert 2 * TURNS <= writes["c"] <= 3 * TURNS, "the text and the end may go together when both are there"

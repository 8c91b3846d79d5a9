"""Two `lobu run` on one database: what one of them runs is read, cancelled and answered at the other, as if it were
there.

The link from the first host to the second goes through a proxy, so that it can be cut. Each has its own links to the
other; that the second reaches the first directly is of no use to readers at the first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from statistics import median

import attrs
import psycopg
import pytest
import trio

from tests.fakes.proxy import Proxy
from tests.system.audit import broken_promises
from tests.system.conftest import Start, client_of
from tests.system.lobu_process import ECHO, LobuRun, free_port, until
from tests.system.sse_client import Conversation, Transcript

CONFIG = f"""
[limits]
sweep_interval_seconds = {{sweep}}
{ECHO}[links]
{{links}}
"""
NO_SWEEP = 1000  # none comes to the rescue of a hint that is lost
SHARED = {"LOBU_ALLOW_MULTI_HOST": "1", "LOBU_JWT_KEYS": f"k:{'s' * 40}"}


@attrs.frozen
class Pair:
    """`reads` has the readers, `works` the workers."""

    reads: LobuRun
    works: LobuRun
    proxy: Proxy
    url: str

    async def open(self) -> tuple[Conversation, Conversation]:
        """A conversation that the second host owns, as it is seen at the first, and at the second."""
        at_owner = await client_of(self.works).open()
        assert (await at_owner.ask("mine")).event == "complete"
        return at_owner.through(client_of(self.reads)), at_owner

    def links_made(self) -> int:
        """By the first host, so far."""
        return self.reads.errors().count("link is up")


@pytest.fixture
async def pair(request: pytest.FixtureRequest, start_run: Start, database_url: str) -> AsyncIterator[Pair]:
    sweep = getattr(request, "param", NO_SWEEP)
    async with trio.open_nursery() as nursery:
        port = free_port()
        proxy = Proxy(port)
        await nursery.start(proxy.run)
        links = f'listen = "127.0.0.1:{port}"\nadvertise = "ws://127.0.0.1:{proxy.port}"'
        works = await start_run(config=CONFIG.format(links=links, sweep=sweep), environment=SHARED)
        reads = await start_run(config=CONFIG.format(links="", sweep=sweep), environment=SHARED)
        pair = Pair(reads, works, proxy, database_url)
        await until(lambda: pair.links_made() and "link is up" in works.errors(), "both links are up")
        yield pair
        nursery.cancel_scope.cancel()


class Reader:
    """Follows one conversation for as long as its nursery lives; knows when how much of a text was there."""

    def __init__(self, nursery: trio.Nursery, conversation: Conversation) -> None:
        self.transcript = Transcript()
        self.times: dict[int, float] = {}
        self.ends: dict[str, float] = {}
        nursery.start_soon(self.transcript.follow, conversation, self._note)

    def _note(self) -> bool:
        for text in self.transcript.texts.values():
            self.times.setdefault(len(text), trio.current_time())
        for message_id in self.transcript.terminals:
            self.ends.setdefault(message_id, trio.current_time())
        return False

    def text(self, message_id: str) -> str:
        return self.transcript.texts.get(message_id, "")

    async def ended(self, message_id: str, seconds: float = 60.0) -> str:
        """The terminal event's text."""
        await until(lambda: message_id in self.transcript.terminals, "the terminal event", seconds)
        return str(self.transcript.terminals[message_id].data["finalText"])


async def test_deltas_come_live_and_the_end_comes_once(pair: Pair) -> None:
    here, there = await pair.open()
    async with trio.open_nursery() as nursery:
        seen, seen_there = Reader(nursery, here), Reader(nursery, there)
        message_id = await there.send("stream 60 100")  # six seconds
        whole = "".join(f"word{number} " for number in range(60))
        assert await seen.ended(message_id) == whole
        assert await seen_there.ended(message_id) == whole
        nursery.cancel_scope.cancel()
    assert (seen.transcript.faults, seen_there.transcript.faults) == ([], [])
    assert seen.text(message_id) == whole
    quarter = min(at for length, at in seen.times.items() if length > len(whole) / 4)
    assert seen.ends[message_id] - quarter > 1, "live, not all at the end"
    late = [seen.times[length] - seen_there.times[length] for length in seen.times.keys() & seen_there.times.keys()]
    assert median(late) < 1, late
    assert broken_promises(pair.url) == []


async def test_a_message_posted_here_runs_there_at_once(pair: Pair) -> None:
    here, _ = await pair.open()
    assert (await here.ask("hello there")).data["finalText"] == "hello there"
    with psycopg.connect(pair.url) as connection:
        assert connection.execute("SELECT count(DISTINCT host_id) FROM run").fetchone() == (1,)
    # What comes while something runs keeps its wish: the second message interrupts the first.
    first = await here.send("sleep 100")
    second = await here.send("instead", onBusy="interrupt")
    assert (await here.terminal_of(first)).event == "cancelled"
    assert (await here.terminal_of(second)).data["finalText"] == "instead"


async def test_cancel_and_answer_here_work_there(pair: Pair) -> None:
    here, there = await pair.open()
    message_id = await there.send("sleep 100")
    answer = await here.client.call("POST", f"{here.path}/cancel", {"messageId": message_id})
    assert (answer.status, answer.body["stage"]) == (202, "accepted")
    assert (await here.terminal_of(message_id)).event == "cancelled"
    asking = await there.send("ask what now")
    async with trio.open_nursery() as nursery:
        seen = Reader(nursery, here)
        frames = seen.transcript.frames
        await until(lambda: any(frame.event == "question" for frame in frames), "the question")
        question = next(frame for frame in frames if frame.event == "question").data["questionId"]
        path = f"{here.path}/questions/{question}/answer"
        assert (await here.client.call("POST", path, {"answer": "this"})).status == 200
        assert (await seen.ended(asking)).endswith("this")
        nursery.cancel_scope.cancel()
    assert seen.transcript.faults == []
    status = await here.client.call("GET", here.path)
    assert status.body["agent"]["status"] == "idle"
    assert (await here.client.call("DELETE", here.path)).body["closed"] is True


@pytest.mark.parametrize("how", ["cut", pytest.param("stalled", marks=pytest.mark.slow)])
async def test_a_link_that_is_down_costs_latency_only(pair: Pair, how: str) -> None:
    here, there = await pair.open()
    async with trio.open_nursery() as nursery:
        seen = Reader(nursery, here)
        first = await there.send("stream 600 10")
        await until(lambda: len(seen.text(first)) > 200, "some text")
        links = pair.links_made()
        (pair.proxy.cut if how == "cut" else pair.proxy.stall)()
        ended = (await there.terminal_of(first)).data["finalText"]
        assert await seen.ended(first) == ended, "the log is looked into again and again"
        # While it is down: accepted here, run there though no sweep comes, and told from the log.
        second = await here.send("over the store")
        await there.terminal_of(second)
        assert await seen.ended(second) == "over the store"
        third = await there.send("stream 10000 10")
        await trio.sleep(1)
        assert seen.text(third) == "", "text comes over the link only"
        pair.proxy.heal()
        await until(lambda: pair.links_made() > links, "the link is made again")
        await until(lambda: seen.text(third), "it is live again")
        await there.client.call("POST", f"{there.path}/cancel", {"messageId": third})
        await until(lambda: third in seen.transcript.terminals, "its end")
        nursery.cancel_scope.cancel()
    assert seen.transcript.faults == []
    assert broken_promises(pair.url) == []


@pytest.mark.parametrize(
    "pair", [1], indirect=True
)  # who is behind a proxy is not known to be gone before its lease is
async def test_a_host_that_dies_is_followed_to_the_next(start_run: Start, pair: Pair) -> None:
    """What ran there runs again here; the reader is told to forget the first attempt, and sees one end."""
    here, there = await pair.open()
    async with trio.open_nursery() as nursery:
        seen = Reader(nursery, here)
        message_id = await there.send("stream 600 10")
        await until(lambda: len(seen.text(message_id)) > 100, "some text")
        await pair.works.kill_all()
        await seen.ended(message_id)
        nursery.cancel_scope.cancel()
    assert seen.transcript.faults == []
    assert [frame.data["attempt"] for frame in seen.transcript.frames if frame.event == "restart"] == [2]
    assert seen.text(message_id) == seen.transcript.terminals[message_id].data["finalText"]
    assert broken_promises(pair.url) == []

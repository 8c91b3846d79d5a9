"""Two `lobu run` on one database: what one of them runs is read, cancelled and answered at the other, as if it were there.

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
from tests.system.lobu_process import LobuRun, free_port, until
from tests.system.sse_client import Conversation, Transcript

CONFIG = """
[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
[[agents]]
id = "echo"
worker = "echo"
default = true
[links]
{links}
"""
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

    def links_up(self) -> int:
        return self.reads.errors().count("link is up")

    async def relinked(self, before: int) -> None:
        await until(lambda: self.links_up() > before, "the link is made again", 15)


@pytest.fixture
async def pair(start_run: Start, database_url: str) -> AsyncIterator[Pair]:
    async with trio.open_nursery() as nursery:
        port = free_port()
        proxy = Proxy(port)
        await nursery.start(proxy.run)
        links = f'listen = "127.0.0.1:{port}"\nadvertise = "ws://127.0.0.1:{proxy.port}"'
        works = await start_run(config=CONFIG.format(links=links), environment=SHARED)
        reads = await start_run(config=CONFIG.format(links=""), environment=SHARED)
        pair = Pair(reads, works, proxy, database_url)
        await until(lambda: pair.links_up() and "link is up" in works.errors(), "both links are up", 20)
        yield pair
        nursery.cancel_scope.cancel()


async def follow(conversation: Conversation, transcript: Transcript, times: dict[int, float]) -> None:
    """Until cancelled; notes when how much of the text was there."""
    nothing: list[bool] = []

    def note() -> bool:
        for text in transcript.texts.values():
            times.setdefault(len(text), trio.current_time())
        return bool(nothing)

    await transcript.follow(conversation, note)


async def test_deltas_come_live_and_the_end_comes_once(pair: Pair) -> None:
    here, there = await pair.open()
    seen, seen_there = Transcript(), Transcript()
    times: dict[int, float] = {}
    times_there: dict[int, float] = {}
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, here, seen, times)
            nursery.start_soon(follow, there, seen_there, times_there)
            message_id = await there.send("stream 60 30")
            while message_id not in seen.terminals or message_id not in seen_there.terminals:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert (seen.faults, seen_there.faults) == ([], [])
    whole = "".join(f"word{number} " for number in range(60))
    assert seen.texts[message_id] == whole
    assert seen.terminals[message_id].data["finalText"] == whole
    late = [times[length] - times_there[length] for length in times.keys() & times_there.keys()]
    assert len(late) > 30, "live, not all at the end"
    assert median(late) < 0.1, late
    assert broken_promises(pair.url) == []


async def test_a_message_posted_here_runs_there_at_once(pair: Pair) -> None:
    here, _ = await pair.open()
    began = trio.current_time()
    assert (await here.ask("hello there")).data["finalText"] == "hello there"
    assert trio.current_time() - began < 1.5, "it did not wait for a sweep"
    with psycopg.connect(pair.url) as connection:
        hosts = connection.execute("SELECT count(DISTINCT host_id) FROM run").fetchone()
    assert hosts == (1,)
    # What comes while something runs keeps its wish: the second message interrupts the first.
    first = await here.send("sleep 30")
    second = await here.send("instead", onBusy="interrupt")
    assert (await here.terminal_of(first, 20)).event == "cancelled"
    assert (await here.terminal_of(second, 20)).data["finalText"] == "instead"


async def test_cancel_and_answer_here_work_there(pair: Pair) -> None:
    here, there = await pair.open()
    message_id = await there.send("sleep 100")
    began = trio.current_time()
    answer = await here.client.call("POST", f"{here.path}/cancel", {"messageId": message_id})
    assert (answer.status, answer.body["stage"]) == (202, "accepted")
    assert (await here.terminal_of(message_id, 20)).event == "cancelled"
    assert trio.current_time() - began < 3
    seen = Transcript()
    asking = await there.send("ask what now")
    with trio.fail_after(20):
        await seen.follow(here, lambda: any(frame.event == "question" for frame in seen.frames))
        question = next(frame for frame in seen.frames if frame.event == "question").data["questionId"]
        path = f"{here.path}/questions/{question}/answer"
        assert (await here.client.call("POST", path, {"answer": "this"})).status == 200
        await seen.follow(here, lambda: asking in seen.terminals)
    assert seen.terminals[asking].data["finalText"].endswith("this")
    assert seen.faults == []
    status = await here.client.call("GET", here.path)
    assert status.body["agent"]["status"] == "idle"
    assert (await here.client.call("DELETE", here.path)).body["closed"] is True


@pytest.mark.parametrize("how", ["cut", "stalled"])
async def test_a_link_that_is_down_costs_latency_only(pair: Pair, how: str) -> None:
    here, there = await pair.open()
    seen = Transcript()
    with trio.fail_after(90):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, here, seen, {})
            first = await there.send("stream 400 10")
            while len(seen.texts.get(first, "")) < 200:
                await trio.sleep(0.01)
            links = pair.links_up()
            if how == "cut":
                pair.proxy.cut()
            else:
                pair.proxy.stall()
            ended = (await there.terminal_of(first)).data["finalText"]
            began = trio.current_time()
            while first not in seen.terminals:
                await trio.sleep(0.01)
            assert trio.current_time() - began < 2.5, "the log is looked into each second"
            assert seen.terminals[first].data["finalText"] == ended
            # While it is down: accepted here, run there, and told from the log.
            began = trio.current_time()
            second = await here.send("over the store")
            while second not in seen.terminals:
                await trio.sleep(0.01)
            assert trio.current_time() - began < 3.5
            third = await there.send("stream 600 10")
            await trio.sleep(1)
            pair.proxy.heal()
            await pair.relinked(links)
            while third not in seen.terminals:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert seen.faults == []
    assert seen.texts[third] == seen.terminals[third].data["finalText"], "it was live again"
    assert broken_promises(pair.url) == []


async def test_a_host_that_dies_is_followed_to_the_next(pair: Pair) -> None:
    """What ran there runs again here; the reader is told to forget the first attempt, and sees one end."""
    here, there = await pair.open()
    seen = Transcript()
    with trio.fail_after(90):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, here, seen, {})
            message_id = await there.send("stream 300 10")
            while len(seen.texts.get(message_id, "")) < 100:
                await trio.sleep(0.01)
            await pair.works.kill_all()
            while message_id not in seen.terminals:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert seen.faults == []
    assert [frame.data["attempt"] for frame in seen.frames if frame.event == "restart"] == [2]
    assert seen.texts[message_id] == seen.terminals[message_id].data["finalText"]
    assert broken_promises(pair.url) == []

"""Turns that go on while their supervisor is killed and started again, as the client sees them."""

from __future__ import annotations

import psycopg
import pytest
import trio

from tests.supervisor_kills import Options, kill_supervisors
from tests.system.audit import broken_promises, turn_of
from tests.system.conftest import Start, client_of
from tests.system.lobu_process import LobuRun, free_port, until
from tests.system.sse_client import Conversation, Transcript

CONFIG = """
[limits]
drain_grace_seconds = 0.05
[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
[workers.shell]
command = ["bash", "{script}"]
[[agents]]
id = "echo"
worker = "echo"
default = true
[[agents]]
id = "shell"
worker = "shell"
"""
# A worker that has no capabilities at all. Its first attempt ends only with it.
SHELL = r"""
field() { local pattern="\"$1\":\"([^\"]*)\""; [[ $2 =~ $pattern ]] && printf '%s' "${BASH_REMATCH[1]}"; }
while IFS= read -r line <&"$LOBU_WORKER_FD"; do
  case $(field type "$line") in
    hello)
      printf '{"type":"ready","protocol":1,"name":"shell","version":"1","capabilities":[]}\n' >&"$LOBU_WORKER_FD" ;;
    turn)
      run=$(field runId "$line")
      printf '{"type":"delta","runId":"%s","text":"slowly "}\n' "$run" >&"$LOBU_WORKER_FD"
      [[ $line == *'"attempt":1,'* ]] && sleep 1000
      printf '{"type":"complete","runId":"%s"}\n' "$run" >&"$LOBU_WORKER_FD" ;;
  esac
done
"""
SECONDS = 60.0


@pytest.fixture
async def run(start_run: Start, tmp_path) -> LobuRun:
    script = tmp_path / "worker.sh"
    script.write_text(SHELL)
    tmp_path.chmod(0o755)
    return await start_run(config=CONFIG.format(script=script), arguments=("--port", str(free_port())))


async def again(run: LobuRun) -> None:
    await run.kill_main()
    await run.start()


class Reader:
    """A client that is connected all along, as far as there is anything to be connected to."""

    def __init__(self, conversation: Conversation, nursery: trio.Nursery) -> None:
        self.conversation = conversation
        self.transcript = Transcript()
        nursery.start_soon(self.transcript.follow, conversation, lambda: False)

    def events(self, name: str):
        return [frame for frame in self.transcript.frames if frame.event == name]

    async def seen(self, name: str, number: int = 1) -> None:
        await until(lambda: len(self.events(name)) >= number, f"{number} {name}", SECONDS)

    async def grows(self, message_id: str) -> None:
        """More of it is here than when this was called, or its end, where the machine was slower than the reply."""
        texts, ends = self.transcript.texts, self.transcript.terminals
        before = len(texts.get(message_id, ""))
        await until(lambda: len(texts.get(message_id, "")) > before or message_id in ends, "more of it", SECONDS)

    async def text(self, message_id: str) -> str:
        """What was shown of a reply that completed; the same as is kept of it."""
        await until(lambda: message_id in self.transcript.terminals, f"the end of {message_id}", SECONDS)
        assert not self.transcript.faults
        frame = self.transcript.terminals[message_id]
        assert frame.event == "complete", frame
        assert frame.data["finalText"].startswith(self.transcript.texts.get(message_id, ""))
        return str(frame.data["finalText"])


def words(number: int) -> str:
    return "".join(f"word{n} " for n in range(number))


async def test_the_short_form_of_the_kills() -> None:
    report = await kill_supervisors(Options(kills=5, streams=4, bound_seconds=90))
    assert report.faults == []
    assert report.completed >= 4


async def test_a_reply_and_what_is_queued_behind_it_across_kills(run: LobuRun) -> None:
    async with trio.open_nursery() as nursery:
        reader = Reader(await client_of(run).open(), nursery)
        first = await reader.conversation.send("stream 800 10")
        behind = [await reader.conversation.send(f"number {n}") for n in range(3)]
        await reader.seen("output")
        for _ in range(3):
            await again(run)
            await reader.grows(first)
        assert await reader.text(first) == words(800)
        assert [await reader.text(message_id) for message_id in behind] == ["number 0", "number 1", "number 2"]
        assert [turn_of(run.database_url, message_id)[1] for message_id in (first, *behind)] == [1] * 4
        assert broken_promises(run.database_url) == []
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_large_reply_across_kills(run: LobuRun) -> None:
    number = 100_000  # 1 MB
    async with trio.open_nursery() as nursery:
        reader = Reader(await client_of(run).open(), nursery)
        message_id = await reader.conversation.send(f"stream {number}")
        for _ in range(2):
            await reader.grows(message_id)
            await again(run)
        assert await reader.text(message_id) == words(number)
        assert turn_of(run.database_url, message_id)[1] == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("answered", ["afterwards", "in the store, while nobody is there"])
async def test_a_question_across_a_kill(run: LobuRun, answered: str) -> None:
    async with trio.open_nursery() as nursery:
        reader = Reader(await client_of(run).open(), nursery)
        message_id = await reader.conversation.send("ask Which one?")
        await reader.seen("question")
        question_id = reader.events("question")[0].data["questionId"]
        if answered == "afterwards":
            await again(run)
            path = f"{reader.conversation.path}/questions/{question_id}/answer"
            answer = await client_of(run).call("POST", path, {"answer": "this one"})
            assert answer.status == 200, answer
        else:
            await run.kill_main()
            with psycopg.connect(run.database_url, autocommit=True) as connection:
                given = "SET status = 'answered', answer = 'this one', answered_by = 'ann'"
                statement = f"UPDATE question {given} WHERE question_id = %s"
                assert connection.execute(statement, (question_id,)).rowcount == 1
            await run.start()
        assert await reader.text(message_id) == "this one"
        assert [frame.data["questionId"] for frame in reader.events("question")] == [question_id]
        assert turn_of(run.database_url, message_id)[1] == 1
        nursery.cancel_scope.cancel()


async def test_a_cancel_right_before_a_kill(run: LobuRun) -> None:
    async with trio.open_nursery() as nursery:
        reader = Reader(await client_of(run).open(), nursery)
        message_id = await reader.conversation.send("stream 3000 10")
        await reader.seen("output")
        path = f"{reader.conversation.path}/cancel"
        answer = await client_of(run).call("POST", path, {"messageId": message_id})
        assert answer.status in (200, 202), answer
        await again(run)
        await until(lambda: message_id in reader.transcript.terminals, "its end", SECONDS)
        assert reader.transcript.terminals[message_id].event == "cancelled"
        nursery.cancel_scope.cancel()


async def test_a_cancel_after_a_kill(run: LobuRun) -> None:
    async with trio.open_nursery() as nursery:
        reader = Reader(await client_of(run).open(), nursery)
        message_id = await reader.conversation.send("stream 3000 10")
        await reader.seen("output")
        await again(run)
        await client_of(run).call("POST", f"{reader.conversation.path}/cancel", {"messageId": message_id})
        await until(lambda: message_id in reader.transcript.terminals, "its end", SECONDS)
        assert reader.transcript.terminals[message_id].event == "cancelled"
        assert turn_of(run.database_url, message_id)[1] == 1
        nursery.cancel_scope.cancel()


async def test_a_worker_that_cannot_go_on_is_ended_and_its_turn_tried_again(run: LobuRun) -> None:
    async with trio.open_nursery() as nursery:
        reader = Reader(await client_of(run).open(agentId="shell"), nursery)
        message_id = await reader.conversation.send("hello")
        await reader.seen("output")
        before = run.worker_pids()
        await again(run)
        assert await reader.text(message_id) == "slowly "
        assert reader.events("restart")
        assert turn_of(run.database_url, message_id)[1] == 2
        assert not set(before) & set(run.worker_pids())
        nursery.cancel_scope.cancel()

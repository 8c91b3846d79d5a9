"""Workers on another machine: replies, files, questions and cancels over the link, and everything that may be cut."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import trio
from trio_websocket import ConnectionClosed

from lobu_actors.contract import worker_link as link
from lobu_actors.store.embedded import EmbeddedServer
from tests.conftest import admin, url_of
from tests.system.audit import broken_promises, turn_of
from tests.system.cluster import lobu
from tests.system.conftest import Start, client_of, shared_run
from tests.system.lobu_process import LOBU, LobuRun, free_port, until
from tests.system.remote_world import CONFIG, GRACE_SECONDS, MORE_GRACE, joined, proxied, runner, worker_key

# Of the same worker type, but it does not wait for a place for long.
AGENTS = """
[[agents]]
id = "hasty"
worker = "gpu"
deadlines = { startup_seconds = 2 }
[[agents]]
id = "brisk"
worker = "gpu"
deadlines = { startup_seconds = 5 }
"""
FILES_WORKER = Path(__file__).parents[1] / "workers" / "files_worker.py"


@pytest.fixture(scope="module")
def run(database_server: EmbeddedServer, template_database: str) -> Iterator[LobuRun]:
    """What most tests here talk to; the runners are each test's own."""
    admin(database_server.url, f"CREATE DATABASE lobu_remote TEMPLATE {template_database} STRATEGY file_copy")
    with shared_run(CONFIG + AGENTS, url_of(database_server, "lobu_remote")) as shared:
        yield shared
    admin(database_server.url, "DROP DATABASE lobu_remote WITH (FORCE)")


async def running(run: LobuRun, message_id: str) -> None:
    """Return when its worker has a place and is at it."""
    await until(lambda: turn_of(run.database_url, message_id)[0] == "running", "it has its place")


async def idle_places(run: LobuRun, places: int) -> None:
    """Return when the host knows of that many: a runner is connected when it knows of the first."""
    with trio.fail_after(30):
        while json.loads((await lobu(run, "status", "--json")).stdout)["inside"][0]["idlePlaces"] != places:
            pass


async def test_a_conversation_on_another_machine(run: LobuRun) -> None:
    async with runner(run) as far:
        conversation = await client_of(run).open(forceNew=True)
        assert (await conversation.ask("hello there")).data["finalText"] == "hello there"
        assert (await conversation.ask("history")).data["finalText"] == "2", "the session went there and back"
        environment = json.loads((await conversation.ask("env")).data["finalText"])
        assert environment["MARK"] == "of the runner"
        assert environment["WORKSPACE_DIR"].startswith(str(far.folder))
        assert environment["DISPATCHER_URL"] == run.url
        assert "DATABASE_URL" not in environment
        assert "LOBU_WORKER_KEY" not in environment
        messages = await client_of(run).call("GET", f"{conversation.path}/session/messages")
        assert len(messages.body["messages"]) == 6
    assert broken_promises(run.database_url) == []


async def test_questions_cancels_and_failures_are_those_of_a_local_worker(run: LobuRun) -> None:
    async with runner(run):
        conversation = await client_of(run).open(forceNew=True)
        async with conversation.events() as stream:
            message_id = await conversation.send("ask Go on?")
            question = await stream.next_of("question")
            path = f"{conversation.path}/questions/{question.data['questionId']}/answer"
            assert (await client_of(run).call("POST", path, {"answer": "yes"})).status == 200
        assert (await conversation.terminal_of(message_id)).data["finalText"] == "yes"
        message_id = await conversation.send("sleep 60")
        await running(run, message_id)
        await client_of(run).call("POST", f"{conversation.path}/cancel", {"messageId": message_id})
        assert (await conversation.terminal_of(message_id)).event == "cancelled"
        for content, code in [
            ("crash mid 3", "WORKER_CRASHED"),
            ("garbage", "WORKER_PROTOCOL_ERROR"),
            ("fail PROVIDER_QUOTA no more", "PROVIDER_QUOTA"),
        ]:
            end = await conversation.ask(content)
            assert (end.event, end.data["errorCode"]) == ("agent-error", code)
        assert (await conversation.ask("history")).data["finalText"] == "2", "of what failed nothing stays"
        assert (await conversation.ask("/new")).event == "complete"
        assert (await conversation.ask("history")).data["finalText"] == "0"
    assert broken_promises(run.database_url) == []


async def test_files_go_there_and_back(run: LobuRun) -> None:
    data = bytes(range(256)) * 4096  # four pieces
    async with runner(run, program=(sys.executable, str(FILES_WORKER))), httpx.AsyncClient() as http:
        conversation = await client_of(run).open(forceNew=True)
        sent = await http.post(
            run.url + conversation.path + "/messages",
            headers={"Authorization": f"Bearer {run.admin_key}"},
            data={"content": "copy", "messageId": "m1"},
            files=[("files", ("a.bin", data)), ("files", ("empty", b""))],
        )
        assert sent.status_code == 200, sent.text
        end = await conversation.terminal_of("m1")
        assert end.event == "complete", end
        sums = json.loads(end.data["finalText"])["sums"]
        assert sums == {"a.bin": hashlib.sha256(data).hexdigest(), "empty": hashlib.sha256(b"").hexdigest()}
        listed = (await client_of(run).call("GET", f"{conversation.path}/files")).body["files"]
        [copied] = [file for file in listed if file["name"] == "copy of a.bin"]
        fetched = await http.get(
            f"{run.url}{conversation.path}/files/{copied['fileId']}",
            headers={"Authorization": f"Bearer {run.admin_key}"},
        )
        assert fetched.content == data


async def test_a_link_that_is_cut_for_a_moment_is_not_noticed(run: LobuRun, nursery: trio.Nursery) -> None:
    proxy = await proxied(run, nursery)
    async with runner(run, url=f"http://127.0.0.1:{proxy.port}") as far:
        conversation = await client_of(run).open(forceNew=True)
        message_id = await conversation.send("stream 150 20")
        async with conversation.events() as stream:
            for _ in range(3):
                await stream.next_of("output")
                cuts = proxy.accepted
                proxy.cut()
                proxy.heal()
                await until(lambda: proxy.accepted > cuts, "it comes again")  # noqa: B023
        end = await conversation.terminal_of(message_id)
        assert end.event == "complete", f"{end} {far.log()} {run.log()}"
        assert end.data["finalText"] == "".join(f"word{n} " for n in range(150))
        assert turn_of(run.database_url, message_id)[1] == 1
        assert far.errors().count("link lost") >= 3
    assert broken_promises(run.database_url) == []


async def test_status_lists_workers_with_their_machines(start_run: Start, nursery: trio.Nursery) -> None:
    run = await start_run(config=MORE_GRACE)  # for a command that looks at a link that is cut

    async def listed() -> dict[str, tuple[str, str]]:
        """State and machine of each conversation's worker."""
        told = json.loads(await status("--json"))["inside"][0]
        assert told["idlePlaces"] == idle
        return {one["conversationId"]: (one["state"], one["machine"]) for one in told["workers"]}

    async def status(*more: str) -> str:
        words = [sys.executable, *LOBU, "status", *more]
        ran = await trio.run_process(words, capture_stdout=True, cwd=run.folder, env=run.environment)
        return ran.stdout.decode()

    async def shows(key: str, state: str, machine: str) -> None:
        with trio.fail_after(30):
            while (await listed()).get(key) != (state, machine):  # noqa: ASYNC110 - it tells nobody
                await trio.sleep(0.1)

    proxy, here = await proxied(run, nursery), platform.node()
    async with runner(run, url=f"http://127.0.0.1:{proxy.port}"):
        await idle_places(run, 1)
        idle = 1
        await listed()
        first, second = [await client_of(run).open(forceNew=True) for _ in range(2)]
        message_id = await first.send("sleep 60")
        idle = 0
        await running(run, message_id)
        await shows(first.key, "ready", here)
        waits = await second.send("hello")
        await shows(second.key, "waiting", "")
        lines = (await status()).splitlines()
        assert any(first.key in line and line.endswith(f"on {here}") for line in lines), lines
        assert any(second.key in line and line.endswith("on no machine yet") for line in lines), lines
        proxy.cut()
        await shows(first.key, "cut", here)
        proxy.heal()
        await shows(first.key, "ready", here)
        for conversation, one in ((second, waits), (first, message_id)):
            await client_of(run).call("POST", f"{conversation.path}/cancel", {"messageId": one})
            assert (await conversation.terminal_of(one)).event == "cancelled"
            await client_of(run).call("DELETE", conversation.path)  # or its worker would have the next one's place


async def test_a_link_that_stays_cut_is_a_lost_worker(run: LobuRun, nursery: trio.Nursery) -> None:
    proxy = await proxied(run, nursery)
    async with runner(run, url=f"http://127.0.0.1:{proxy.port}") as far:
        conversation = await client_of(run).open(forceNew=True)
        message_id = await conversation.send("spawn")
        child = int((await conversation.terminal_of(message_id)).data["finalText"])
        message_id = await conversation.send("sleep 60")
        await running(run, message_id)
        async with conversation.events() as stream:
            await stream.next_of("connected")
            proxy.cut()
            began = trio.current_time()
            end = await conversation.terminal_of(message_id)
        assert (end.event, end.data["errorCode"]) == ("agent-error", "WORKER_CRASHED")
        assert "link to its machine was lost" in json.dumps(end.data)
        assert GRACE_SECONDS - 1 < trio.current_time() - began < GRACE_SECONDS + 15
        await until(lambda: not far.worker_pids(), "the other side ends its worker too")
        await until(lambda: not psutil.pid_exists(child), "and what that started")
        proxy.heal()
        end = await conversation.ask("hello again")
        assert end.event == "complete", f"{end} {far.log()} {run.log()}"
    assert broken_promises(run.database_url) == []


async def test_a_runner_that_is_killed_in_the_middle_of_a_turn(run: LobuRun) -> None:
    async with runner(run) as far:
        conversation = await client_of(run).open(forceNew=True)
        message_id = await conversation.send("stream 2000 20")
        async with conversation.events() as stream:
            await stream.next_of("output")
        os.kill(far.main.pid, signal.SIGKILL)
        end = await conversation.terminal_of(message_id)
        assert (end.event, end.data["errorCode"]) == ("agent-error", "WORKER_CRASHED")
        await far.ended()
        await until(lambda: not far.pids(), "its workers and its spawner end too")
        await far.start()
        assert (await conversation.ask("hello")).data["finalText"] == "hello"


async def test_a_runner_that_is_stopped_finishes_its_turn_and_leaves_nothing(run: LobuRun) -> None:
    async with runner(run, arguments=("--slots", "2")) as far:
        conversation, idle = await client_of(run).open(forceNew=True), await client_of(run).open(forceNew=True)
        await idle.ask("between two turns")
        message_id = await conversation.send("stream 20 50")
        async with conversation.events() as stream:
            await stream.next_of("output")
        far.main.send_signal(signal.SIGTERM)
        assert (await conversation.terminal_of(message_id)).event == "complete"
        assert await far.ended() == 0
        assert far.pids() == []
    async with runner(run):
        assert (await idle.ask("another runner")).data["finalText"] == "another runner"


async def test_a_worker_that_starts_at_a_runner_that_is_stopped_starts_at_another(run: LobuRun) -> None:
    never_ready = ("python", "-c", "import time; time.sleep(1000)")
    async with runner(run, program=never_ready) as leaving:
        conversation = await client_of(run).open(forceNew=True)
        message_id = await conversation.send("hello")
        await until(leaving.worker_pids, "its worker starts")
        leaving.main.send_signal(signal.SIGTERM)
        assert await leaving.ended() == 0
        assert leaving.pids() == []
    async with runner(run):
        end = await conversation.terminal_of(message_id)
        assert (end.event, end.data.get("finalText")) == ("complete", "hello"), end


async def test_a_turn_that_is_on_its_way_to_a_runner_that_is_stopped_runs_at_another(
    run: LobuRun, nursery: trio.Nursery
) -> None:
    proxy = await proxied(run, nursery)
    async with runner(run, url=f"http://127.0.0.1:{proxy.port}") as leaving:
        conversation = await client_of(run).open(forceNew=True)
        await conversation.ask("hello")
        proxy.stall()
        message_id = await conversation.send("on its way")
        await until(lambda: turn_of(run.database_url, message_id)[0] == "running", "it is sent")
        leaving.main.send_signal(signal.SIGTERM)
        await until(lambda: not leaving.worker_pids(), "its worker was ended")
        proxy.heal()
        assert await leaving.ended() == 0
    async with runner(run):
        end = await conversation.terminal_of(message_id)
        assert (end.event, end.data.get("finalText")) == ("complete", "on its way"), end


async def test_without_a_runner_a_turn_waits_and_then_says_what_to_start(run: LobuRun) -> None:
    conversation = await client_of(run).open(agentId="hasty", forceNew=True)
    end = await conversation.ask("hello")
    assert (end.event, end.data["errorCode"]) == ("agent-error", "WORKER_STARTUP_FAILED")
    assert "lobu worker connect URL --type gpu" in json.dumps(end.data)


async def test_a_turn_that_waits_is_given_to_the_runner_that_comes(run: LobuRun) -> None:
    conversation = await client_of(run).open(forceNew=True)
    message_id = await conversation.send("hello")
    async with runner(run):
        assert (await conversation.terminal_of(message_id)).data["finalText"] == "hello"


async def test_a_conversation_at_rest_gives_its_place_up(run: LobuRun) -> None:
    async with runner(run) as far:  # one place
        talks = [await client_of(run).open(forceNew=True) for _ in range(3)]
        with trio.fail_after(60):  # not one of them waits until another is idle for long enough
            for talk in [*talks, talks[0]]:
                assert (await talk.ask("hello")).event == "complete"
                assert len(far.worker_pids()) <= 1


async def test_work_is_waited_for_longer_than_a_start_may_take(run: LobuRun) -> None:
    async with runner(run):
        long = await client_of(run).open(forceNew=True)
        message_id = await long.send("stream 60 100")  # six seconds
        async with long.events() as stream:
            await stream.next_of("output")
            brisk = await client_of(run).open(agentId="brisk", forceNew=True)
            assert (await brisk.ask("hello")).event == "complete"
        assert (await long.terminal_of(message_id)).event == "complete"
    assert broken_promises(run.database_url) == []


async def test_two_runners_share_the_conversations(run: LobuRun) -> None:
    async with runner(run) as one, runner(run, arguments=("--slots", "2")) as two:
        await idle_places(run, 3)
        conversations = [await client_of(run).open(forceNew=True) for _ in range(3)]
        for conversation in conversations:
            assert (await conversation.ask("hello")).event == "complete"
        assert (len(one.worker_pids()), len(two.worker_pids())) == (1, 2)
        await one.kill_all()
        await until(lambda: one.pids() == [], "one is gone")
        for conversation in conversations[:2]:
            assert (await conversation.ask("again")).event in ("complete", "agent-error")
    assert broken_promises(run.database_url) == []


@pytest.mark.slow
async def test_a_supervisor_that_is_killed_costs_the_attempt_alone(start_run: Start) -> None:
    run = await start_run(config=CONFIG, arguments=("--port", str(free_port())))
    async with runner(run) as far:
        conversation = await client_of(run).open(forceNew=True)
        message_id = await conversation.send("stream 60 50")
        async with conversation.events() as stream:
            await stream.next_of("output")
        [worker] = far.worker_pids()
        await run.kill_main()
        await run.start()
        end = await conversation.terminal_of(message_id)
        assert (end.event, end.data["finalText"]) == ("complete", "".join(f"word{n} " for n in range(60)))
        assert turn_of(run.database_url, message_id)[1] == 2, "again from the message"
        await until(lambda: worker not in far.worker_pids(), "the worker of the first attempt is ended")
    assert broken_promises(run.database_url) == []


@pytest.mark.parametrize(
    ("key_for", "kind", "sentence"),
    [("admin", "gpu", "This key is no worker's"), ("cpu", "cpu", "This host has no remote worker type 'cpu'")],
)
async def test_a_wrong_key_or_type_is_told_and_is_the_end(run: LobuRun, key_for: str, kind: str, sentence: str) -> None:
    key = run.admin_key if key_for == "admin" else await worker_key(run, key_for)
    async with runner(run, key=key, start=False) as far:
        far.arguments = [kind if word == "gpu" else word for word in far.arguments]
        far.launch()
        assert await far.ended() == 1
        assert sentence in far.errors()
        assert far.pids() == []


@pytest.mark.parametrize(
    ("key_for", "first", "sentence"),
    [
        ("gpu", link.encode(link.Join("gpu", 2, 1)), "It speaks version 2 of the link"),
        ("gpu", link.encode(link.Join("gpu", 1, 7)), "and 7 of the worker protocol"),
        ("tpu", link.encode(link.Join("gpu", 1, 1)), "The token is for workers of type 'tpu'"),
        ("gpu", link.encode(link.Received(0)), "The first message must be `link.join`"),
        ("gpu", '{"type": "ready"}', "The first message must be `link.join`"),
        ("gpu", '{"type": "link.join"}', "lacks a field"),
    ],
)
async def test_what_does_not_fit_is_refused_with_a_sentence(
    run: LobuRun, key_for: str, first: str, sentence: str
) -> None:
    async with joined(run, await worker_key(run, key_for), first) as websocket:
        with trio.fail_after(10), pytest.raises(ConnectionClosed):
            await websocket.get_message()
        assert websocket.closed.code == link.REFUSED
        assert sentence in websocket.closed.reason


async def test_a_worker_that_nobody_knows_is_told_so(run: LobuRun) -> None:
    host = (run.folder / ".lobu" / "host_id").read_text().strip()
    join = link.Join("gpu", 1, 1, resume="no-such-worker", host=host, received=3)
    async with joined(run, await worker_key(run), link.encode(join)) as websocket:
        with trio.fail_after(10), pytest.raises(ConnectionClosed):
            await websocket.get_message()
        assert websocket.closed.code == link.UNKNOWN_WORKER


async def test_another_organizations_key_gets_no_conversation(run: LobuRun) -> None:
    async with runner(run, key=await worker_key(run, organization="rival")):
        end = await (await client_of(run).open(agentId="hasty", forceNew=True)).ask("hello")
        assert end.data["errorCode"] == "WORKER_STARTUP_FAILED"

"""Workers on another machine: replies, files, questions and cancels over the link, and everything that may be cut."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import httpx
import psutil
import pytest
import trio
from trio_websocket import ConnectionClosed

from lobu_actors.contract import worker_link as link
from tests.system.audit import broken_promises, turn_of
from tests.system.conftest import Start, client_of
from tests.system.lobu_process import free_port, until
from tests.system.remote_world import CONFIG, GRACE_SECONDS, joined, proxied, runner, worker_key

FILES_WORKER = Path(__file__).parents[1] / "workers" / "files_worker.py"


async def test_a_conversation_on_another_machine(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    async with runner(run) as far:
        conversation = await client_of(run).open()
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


async def test_questions_cancels_and_failures_are_those_of_a_local_worker(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    async with runner(run) as far:
        conversation = await client_of(run).open()
        async with conversation.events() as stream:
            message_id = await conversation.send("ask Go on?")
            question = await stream.next_of("question")
            path = f"{conversation.path}/questions/{question.data['questionId']}/answer"
            assert (await client_of(run).call("POST", path, {"answer": "yes"})).status == 200
        assert (await conversation.terminal_of(message_id)).data["finalText"] == "yes"
        message_id = await conversation.send("sleep 60")
        await until(far.worker_pids, "its worker runs")
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


async def test_files_go_there_and_back(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    data = bytes(range(256)) * 4096  # four pieces
    async with runner(run, program=(sys.executable, str(FILES_WORKER))), httpx.AsyncClient() as http:
        conversation = await client_of(run).open()
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


async def test_a_link_that_is_cut_for_a_moment_is_not_noticed(start_run: Start, nursery: trio.Nursery) -> None:
    run = await start_run(config=CONFIG)
    proxy = await proxied(run, nursery)
    async with runner(run, url=f"http://127.0.0.1:{proxy.port}") as far:
        conversation = await client_of(run).open()
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


async def test_a_link_that_stays_cut_is_a_lost_worker(start_run: Start, nursery: trio.Nursery) -> None:
    run = await start_run(config=CONFIG)
    proxy = await proxied(run, nursery)
    async with runner(run, url=f"http://127.0.0.1:{proxy.port}") as far:
        conversation = await client_of(run).open()
        message_id = await conversation.send("spawn")
        child = int((await conversation.terminal_of(message_id)).data["finalText"])
        message_id = await conversation.send("sleep 60")
        await until(far.worker_pids, "its worker runs")
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


async def test_a_runner_that_is_killed_in_the_middle_of_a_turn(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    async with runner(run) as far:
        conversation = await client_of(run).open()
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


async def test_a_runner_that_is_stopped_finishes_its_turn_and_leaves_nothing(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    async with runner(run, arguments=("--slots", "2")) as far:
        conversation, idle = await client_of(run).open(thread="a"), await client_of(run).open(thread="b")
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


async def test_without_a_runner_a_turn_waits_and_then_says_what_to_start(start_run: Start) -> None:
    run = await start_run(config=CONFIG.replace("startup_seconds = 10", "startup_seconds = 2"))
    conversation = await client_of(run).open()
    end = await conversation.ask("hello")
    assert (end.event, end.data["errorCode"]) == ("agent-error", "WORKER_STARTUP_FAILED")
    assert "lobu worker connect URL --type gpu" in json.dumps(end.data)


async def test_a_turn_that_waits_is_given_to_the_runner_that_comes(start_run: Start) -> None:
    run = await start_run(config=CONFIG.replace("startup_seconds = 10", "startup_seconds = 50"))
    conversation = await client_of(run).open()
    message_id = await conversation.send("hello")
    async with runner(run):
        assert (await conversation.terminal_of(message_id)).data["finalText"] == "hello"


async def test_two_runners_share_the_conversations(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    async with runner(run) as one, runner(run, arguments=("--slots", "2")) as two:
        conversations = [await client_of(run).open(thread=str(number)) for number in range(3)]
        for conversation in conversations:
            assert (await conversation.ask("hello")).event == "complete"
        assert (len(one.worker_pids()), len(two.worker_pids())) == (1, 2)
        await one.kill_all()
        await until(lambda: one.pids() == [], "one is gone")
        for conversation in conversations[:2]:
            assert (await conversation.ask("again")).event in ("complete", "agent-error")
    assert broken_promises(run.database_url) == []


async def test_a_supervisor_that_is_killed_costs_the_attempt_alone(start_run: Start) -> None:
    run = await start_run(config=CONFIG, arguments=("--port", str(free_port())))
    async with runner(run) as far:
        conversation = await client_of(run).open()
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
    [
        ("nobody", "gpu", "The API key is not valid."),
        ("admin", "gpu", "This key is no worker's"),
        ("tpu", "gpu", "The token is for workers of type 'tpu'"),
        ("cpu", "cpu", "This host has no remote worker type 'cpu'"),
    ],
)
async def test_a_wrong_key_or_type_is_told_and_is_the_end(
    start_run: Start, key_for: str, kind: str, sentence: str
) -> None:
    run = await start_run(config=CONFIG)
    key = {"nobody": "lobu_nobodys", "admin": run.admin_key}.get(key_for) or await worker_key(run, key_for)
    async with runner(run, key=key, start=False) as far:
        far.arguments = [kind if word == "gpu" else word for word in far.arguments]
        far.launch()
        assert await far.ended() == 1
        assert sentence in far.errors()
        assert far.pids() == []


async def test_another_version_is_refused_with_a_sentence(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    key = await worker_key(run)
    for join in (link.Join("gpu", 2, 1), link.Join("gpu", 1, 7)):
        async with joined(run, key, link.encode(join)) as websocket:
            with trio.fail_after(10), pytest.raises(ConnectionClosed):
                await websocket.get_message()
            assert websocket.closed.code == link.REFUSED
            assert "install the same release" in websocket.closed.reason or "speaks version" in websocket.closed.reason


async def test_another_organizations_key_gets_no_conversation(start_run: Start) -> None:
    run = await start_run(config=CONFIG.replace("startup_seconds = 10", "startup_seconds = 2"))
    async with runner(run, key=await worker_key(run, organization="rival")):
        end = await (await client_of(run).open()).ask("hello")
        assert end.data["errorCode"] == "WORKER_STARTUP_FAILED"

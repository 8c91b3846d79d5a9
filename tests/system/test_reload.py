"""SIGHUP: what is read again is for what begins afterwards, and a file that cannot be used changes nothing."""

from __future__ import annotations

import os
import pty
import signal
from pathlib import Path

import trio

from tests.conftest import admin
from tests.system.conftest import Start, client_of
from tests.system.lobu_process import LobuRun, until
from tests.system.sse_client import Conversation

ECHO = '[workers.{0}]\ncommand = ["python", "-m", "lobu_actors.agents.echo"]\nzygote = true\n{1}\n'
AGENT = '[[agents]]\nid = "helper"\nworker = "{0}"\ndefault = true\n'
READ, KEPT = "configuration read again", "configuration not read again"


async def reload(run: LobuRun, config: str, said: str = READ) -> None:
    before = run.errors().count(said)
    (run.folder / "lobu.toml").write_text(config)
    run.signal(signal.SIGHUP)
    await until(lambda: run.errors().count(said) > before, said)


async def limits_of(conversation: Conversation) -> str:
    """What its worker's own limits are, as far as a worker type sets them."""
    pid = int((await conversation.ask("spawn")).data["finalText"])
    text = Path(f"/proc/{pid}/limits").read_text()  # noqa: ASYNC240
    os.kill(pid, signal.SIGKILL)
    return next(line.split()[3] for line in text.splitlines() if line.startswith("Max open files"))


async def test_what_runs_keeps_what_it_began_with_and_the_next_turn_has_the_new(start_run: Start) -> None:
    run = await start_run(config=ECHO.format("old", "open_files = 400") + AGENT.format("old"))
    conversation = await client_of(run).open()
    assert await limits_of(conversation) == "400"
    running = await conversation.send("ask Done?")
    queued = await conversation.send("env")
    questions = "SELECT question_id FROM question WHERE status = 'open'"
    await until(lambda: admin(run.database_url, questions) != [], "it runs")
    deadlines = "\n[agents.deadlines]\nturn_seconds = 100\n"
    await reload(run, ECHO.format("new", "open_files = 500") + AGENT.format("new") + deadlines)
    [(owed,)] = admin(run.database_url, "SELECT count(*) FROM turn_marker")
    assert owed == 2, "the reload ends nothing"
    [(question_id,)] = admin(run.database_url, questions)
    path = f"{conversation.path}/questions/{question_id}/answer"
    assert (await conversation.client.call("POST", path, {"answer": "yes"})).status == 200
    assert (await conversation.terminal_of(running)).data["finalText"] == "yes"
    assert (await conversation.terminal_of(queued)).event == "complete"
    attempts = admin(run.database_url, "SELECT attempt, failures FROM turn")
    assert set(attempts) == {(1, 0)}
    assert await limits_of(conversation) == "500"
    assert await run.stop() == 0


async def test_the_limits_of_a_type_and_of_the_edge_are_those_of_the_file_that_was_read_last(start_run: Start) -> None:
    run = await start_run(config=ECHO.format("echo", "open_files = 400\nwarm = 1") + AGENT.format("echo"))
    conversation = await client_of(run).open()
    assert await limits_of(conversation) == "400"
    bounds = "[limits]\nmessage_max_bytes = 2000\n"
    await reload(run, ECHO.format("echo", "open_files = 500\nwarm = 1") + AGENT.format("echo") + bounds)
    assert await limits_of(conversation) == "500"
    assert (await conversation.post("x" * 3000)).status == 413
    assert (await conversation.post("x" * 100)).status == 200


async def test_a_stream_that_is_open_goes_on_and_ends_with_the_server(start_run: Start) -> None:
    run = await start_run(config=ECHO.format("echo", "") + AGENT.format("echo"))
    conversation = await client_of(run).open()
    async with conversation.events() as stream:
        await reload(run, ECHO.format("echo", "") + AGENT.format("echo") + "[limits]\nstreams_per_conversation = 1\n")
        async with conversation.events() as second:
            assert second.status == 429, "it counts the streams of before"
        message_id = await conversation.send("still here")
        with trio.fail_after(30):
            assert (await stream.next_of("complete")).data["messageId"] == message_id
            run.signal(signal.SIGTERM)
            await stream.next_of("drain")
    assert await run.wait_exit() == 0


async def test_a_file_that_cannot_be_used_changes_nothing_and_says_why(start_run: Start) -> None:
    good = ECHO.format("echo", "") + AGENT.format("echo")
    run = await start_run(config=good)
    conversation = await client_of(run).open()
    await reload(run, good.replace("zygote = true", "zygoat = true"), KEPT)
    said = next(line for line in run.errors().splitlines() if KEPT in line)
    assert "lobu.toml" in said
    assert "zygoat" in said
    assert "Traceback" not in run.errors()
    assert (await conversation.ask("as before")).data["finalText"] == "as before"
    await reload(run, good)
    assert (await conversation.ask("and after")).data["finalText"] == "and after"


async def test_what_needs_a_restart_is_named(start_run: Start) -> None:
    good = ECHO.format("echo", "") + AGENT.format("echo")
    run = await start_run(config=good)
    needs = "takes effect with a restart only"
    await reload(
        run,
        good + "[server]\npublic_url = 'http://lobu.example'\n[limits]\nmax_workers = 3\nrequest_burst = 50\n",
        needs,
    )
    said = next(line for line in run.errors().splitlines() if needs in line)
    assert "limits.max_workers" in said
    assert "server" in said
    assert "request_burst" not in said


async def test_a_terminal_that_is_closed_is_the_end(start_run: Start) -> None:
    """As it always was; but in order."""
    run = await start_run(start=False)
    ours, theirs = pty.openpty()
    run.launch(terminal=theirs)
    os.close(theirs)
    await run.wait_ready()
    os.close(ours)
    assert await run.wait_exit() == 0

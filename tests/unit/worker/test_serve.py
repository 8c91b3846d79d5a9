"""The SDK as a handler's author and a supervisor see it, over a real socket."""

from __future__ import annotations

import json

import pytest

from lobu_actors.contract import frames
from lobu_actors.contract.frames import (
    Answer,
    Ask,
    Cancel,
    Complete,
    Delta,
    Ephemeral,
    Fail,
    Heartbeat,
    Log,
    Reattach,
    Shutdown,
    Status,
    Steer,
    TurnFrame,
)
from lobu_actors.worker.session import text_of

HANDLERS = {
    "plain": "def reply(turn):\n    return f'you said {turn.content}'",
    "writes": "def reply(turn):\n    turn.write('you said ')\n    turn.write(turn.content)",
    "generator": "def reply(turn):\n    yield 'you said '\n    yield None\n    yield turn.content",
    "returns": "def reply(turn):\n    yield 'you said '\n    return turn.content",
    "coroutine": "async def reply(turn):\n    return f'you said {turn.content}'",
    "async generator": "async def reply(turn):\n    yield 'you said '\n    yield turn.content",
    "method": "class A:\n    async def go(self, turn):\n        return 'you said ' + turn.content\nreply = A().go",
    "object": "class A:\n    def __call__(self, turn):\n        return 'you said ' + turn.content\nreply = A()",
    "partial": "import functools\nasync def go(x, turn):\n    return x + turn.content\n"
    "reply = functools.partial(go, 'you said ')",
}


@pytest.mark.parametrize("kind", HANDLERS)
def test_every_kind_of_handler_replies(program, kind):
    worker = program(HANDLERS[kind])
    worker.greet()
    assert worker.reply("hi") == "you said hi"
    assert worker.reply("a", "b") == "you said a\n\nb"


def test_what_a_turn_knows(program):
    worker = program(
        "import json\ndef reply(turn):\n    return json.dumps([turn.settings['colour'], turn.workspace, turn.attempt,"
        " turn.messages[0]['messageId'], turn.run_id, turn.cancelled])"
    )
    worker.greet()
    text = worker.reply("x", attempt=2)
    assert text == f'["blue", "{worker.folder}", 2, "m1-0", "r1", false]'


def test_status_ephemeral_log_and_usage(program):
    worker = program(
        "def reply(turn):\n    turn.status('looking', phase='tool', tool='web')\n    turn.ephemeral('psst')\n"
        "    turn.log('noted', level='debug', n=1)\n    turn.usage = {'inputTokens': 3}\n    return 'x'"
    )
    worker.greet()
    run = worker.turn("x")
    assert worker.until(Complete) == [
        Status(run_id=run, status="looking", phase="tool", tool="web"),
        Ephemeral(run_id=run, text="psst"),
        Log(level="debug", message="noted", fields={"n": 1}),
        Delta(run_id=run, text="x"),
        Complete(run_id=run, usage={"inputTokens": 3}, processed_message_ids=["m1-0"]),
    ]


def test_what_a_client_says_carries_out_and_said_before(program):
    worker = program(
        "def reply(turn):\n    before = [message['content'][0]['text'] for message in turn.history()]\n"
        "    turn.tool_calls.append({'id': 'c', 'name': turn.tools[0]['name'], 'arguments': '{}'})\n"
        "    return f'{before} {turn.instructions} {turn.tool_results}'"
    )
    worker.greet()
    message = {
        "messageId": "m",
        "content": "two",
        "history": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "first"}],
        "instructions": "be brief",
        "tools": [{"name": "look"}, "no tool"],
        "toolResults": None,
    }
    worker.say(TurnFrame(run_id="r1", attempt=1, messages=[message], run_token="t"))
    assert worker.until(Complete) == [
        Delta(run_id="r1", text="['one', 'first'] be brief []"),
        Complete(run_id="r1", tool_calls=[{"id": "c", "name": "look", "arguments": "{}"}], processed_message_ids=["m"]),
    ]


def test_a_failure_of_the_provider_that_may_pass(program):
    worker = program(
        "def reply(turn):\n    turn.status('busy', phase='waiting', code='PROVIDER_QUOTA')\n    return 'x'"
    )
    worker.greet()
    run = worker.turn("x")
    assert worker.until(Complete)[0] == Status(run_id=run, status="busy", phase="waiting", code="PROVIDER_QUOTA")


RECORDING = """
def reply(turn):
    yield "let me see"
    turn.record({"role": "assistant", "content": [{"type": "text", "text": "let me see"}], "stopReason": "toolUse"})
    turn.record({"role": "toolResult", "content": []})
    if turn.content == "fail":
        raise Fail("NO")
    yield turn.content
"""


def test_what_a_turn_records_stands_between_question_and_reply(program):
    worker = program(RECORDING)
    worker.greet()
    assert worker.reply("hi") == "let me seehi"
    assert worker.reply("") == "let me see"
    worker.turn("fail")
    worker.until(Fail)
    messages = [json.loads(line).get("message") for line in worker.session_file.read_bytes().splitlines()][1:]
    assert [(message["role"], text_of(message["content"])) for message in messages] == [
        ("user", "hi"), ("assistant", "let me see"), ("toolResult", ""), ("assistant", "hi"),
        ("user", ""), ("assistant", "let me see"), ("toolResult", ""),
        ("user", "fail"),
    ]  # fmt: skip


def test_a_turn_knows_the_summary_of_the_session_before(program):
    worker = program("def reply(turn):\n    return str(turn.summary)")
    worker.greet()
    assert worker.reply("x") == "None"
    worker.say(frames.TurnFrame(run_id="s", attempt=1, messages=[], run_token="t", extra={"summary": "before"}))
    assert worker.until(Complete)[0].text == "before"


ASKING = {
    "blocking": "def reply(turn):\n    yield 'a'\n    yield turn.ask('Go on?', options=['yes', 'no'])",
    "async": "async def reply(turn):\n    yield 'a'\n    yield await turn.ask('Go on?', options=['yes', 'no'])",
}


@pytest.mark.parametrize("kind", ASKING)
def test_ask(program, kind):
    worker = program(ASKING[kind])
    worker.greet()
    run = worker.turn("x")
    ask = worker.until(Ask)[-1]
    assert (ask.prompt, ask.options) == ("Go on?", ["yes", "no"])
    worker.say(Answer(run_id="other", question_id=ask.question_id, answer="wrong run"))
    worker.say(Answer(run_id=run, question_id="other", answer="wrong question"))
    worker.say(Answer(run_id=run, question_id=ask.question_id, answer="yes"))
    assert worker.until(Complete)[0].text == "yes"


FAILING = {
    "blocking": "def reply(turn):\n    if turn.content == 'boom':\n        raise KeyError('gone')\n"
    "    raise Fail('PROVIDER_AUTH', 'no key', retryable=False, context={'a': 1})",
    "async": "async def reply(turn):\n    if turn.content == 'boom':\n        raise KeyError('gone')\n"
    "    raise Fail('PROVIDER_AUTH', 'no key', retryable=False, context={'a': 1})",
}


@pytest.mark.parametrize("kind", FAILING)
def test_exceptions_fail_the_turn_and_not_the_worker(program, kind):
    worker = program(FAILING[kind])
    worker.greet()
    run = worker.turn("x")
    assert worker.fail() == Fail(run_id=run, code="PROVIDER_AUTH", message="no key", retryable=False, context={"a": 1})
    run = worker.turn("boom")
    assert worker.fail() == Fail(run_id=run, code="WORKER_FAILED", message="KeyError: 'gone'")
    output = worker.output()
    assert "Traceback" in output
    assert "PROVIDER_AUTH" not in output


NO_TEXT = {
    "returns": "def reply(turn):\n    return 5",
    "generator": "def reply(turn):\n    yield 5",
    "coroutine": "async def reply(turn):\n    return 5",
    "async generator": "async def reply(turn):\n    yield 5",
    "writes": "def reply(turn):\n    turn.write(5)",
}


@pytest.mark.parametrize("kind", NO_TEXT)
def test_a_reply_that_is_no_text_is_said_to_the_handler(program, kind):
    worker = program(NO_TEXT[kind])
    worker.greet()
    run = worker.turn("x")
    message = "TypeError: a reply is made of str, not of int"
    assert worker.fail() == Fail(run_id=run, code="WORKER_FAILED", message=message)


CANCELLABLE = {
    "sleep": "def reply(turn):\n    turn.status('in')\n    turn.sleep(1000)",
    "ask": "def reply(turn):\n    turn.status('in')\n    turn.ask('?')",
    "generator": "def reply(turn):\n    turn.status('in')\n    try:\n        while True:\n            yield 'x'\n"
    "    finally:\n        print('closed')",
    "swallows": "def reply(turn):\n    turn.status('in')\n    try:\n        turn.sleep(1000)\n"
    "    except Exception:\n        pass",
    "async": "import asyncio\nasync def reply(turn):\n    turn.status('in')\n    await asyncio.sleep(1000)",
    "async ask": "async def reply(turn):\n    turn.status('in')\n    yield await turn.ask('?')",
}


@pytest.mark.parametrize("kind", CANCELLABLE)
def test_cancel(program, kind):
    worker = program(CANCELLABLE[kind])
    worker.greet()
    for _ in range(2):
        run = worker.turn("x")
        worker.until(Status)
        worker.say(Cancel(run_id=run, reason="user", grace_seconds=1))
        assert worker.fail().code == "CANCELLED"


@pytest.mark.parametrize("kind", ["sleep", "async"])
def test_cancel_that_comes_with_the_turn(program, kind):
    worker = program(CANCELLABLE[kind])
    worker.greet()
    run = worker.turn("x")
    worker.say(Cancel(run_id=run, reason="user", grace_seconds=1))
    assert worker.fail().code == "CANCELLED"


def test_an_async_generator_is_closed_when_it_is_cancelled(program):
    worker = program(
        "import asyncio\nasync def reply(turn):\n    try:\n        yield 'x'\n        await asyncio.sleep(1000)\n"
        "    finally:\n        turn.ephemeral('closed')"
    )
    worker.greet()
    run = worker.turn("x")
    worker.until(Delta)
    worker.say(Cancel(run_id=run, reason="user", grace_seconds=1))
    found = worker.until(Fail)
    assert isinstance(found[0], Ephemeral)


def test_steer(program):
    worker = program(
        "def reply(turn):\n    turn.status('in')\n    while not (steers := turn.take_steers()):\n"
        "        turn.sleep(0.001)\n    return ','.join(steer.content for steer in steers)",
        "serve(reply, steer=True, name='n', version='v')",
    )
    ready = worker.greet()
    assert (ready.name, ready.version) == ("n", "v")
    assert "steer" in ready.capabilities
    run = worker.turn("x")
    worker.until(Status)
    worker.say(Steer(run_id=run, message_id="m", content="also this"))
    text, complete = worker.until(Complete)
    assert (text.text, complete.processed_message_ids) == ("also this", ["m1-0", "m"])


@pytest.mark.parametrize("taken", ["[]", "turn.take_steers()[:0]", "[turn.put_back(turn.take_steers()[0])]"])
def test_what_was_added_and_not_read_is_not_named_at_the_end(program, taken):
    worker = program(
        f"async def reply(turn):\n    while await turn.ask('?') != 'go': pass\n    {taken}",
        "serve(reply, steer=True)",
    )
    worker.greet()
    run = worker.turn("x")
    ask = worker.until(Ask)[0]
    worker.say(Steer(run_id=run, message_id="m", content="too late"))
    worker.say(Answer(run_id=run, question_id=ask.question_id, answer="go"))
    read = ["m1-0", "m"] if "[:0]" in taken else ["m1-0"]
    assert worker.until(Complete)[-1].processed_message_ids == read


def test_an_asynchronous_handler_waits_for_what_is_added_and_asks_several_things_at_a_time(program):
    worker = program(
        "import asyncio\nasync def reply(turn):\n"
        "    added, *answers = await asyncio.gather(turn.steered(), turn.ask('1'), turn.ask('2'))\n"
        "    return ' '.join([added[0].content, *answers])",
        "serve(reply, steer=True)",
    )
    worker.greet()
    run = worker.turn("x")
    first, second = worker.until(Ask)[0], worker.until(Ask)[0]
    worker.say(Answer(run_id=run, question_id=second.question_id, answer="b"))
    worker.say(Steer(run_id=run, message_id="m", content="added"))
    worker.say(Answer(run_id=run, question_id=first.question_id, answer="a"))
    assert worker.until(Complete)[0].text == "added a b"


def test_a_worker_that_writes_its_own_session_file_is_left_alone(program):
    worker = program("def reply(turn):\n    return turn.session_file", "serve(reply, writes_session=True)")
    worker.greet()
    assert worker.reply("x") == str(worker.session_file)
    assert not worker.session_file.exists()


def test_a_crash_ends_the_process_and_says_nothing(program):
    worker = program("from lobu_actors.worker import crash\nasync def reply(turn):\n    crash('it is dead')")
    worker.greet()
    worker.turn("x")
    assert worker.lines.readline() == b""
    assert worker.process.wait(20) == 70
    assert "this worker ends: it is dead" in worker.process.stdout.read()


def test_heartbeats_go_on_while_the_handler_blocks(program):
    worker = program("import time\ndef reply(turn):\n    time.sleep(1000)")
    worker.greet(heartbeat_seconds=0.03)
    worker.turn("x")
    assert [worker.hear() for _ in range(3)] == [Heartbeat()] * 3


def test_reattach_gives_text_again_from_the_offset_and_then_goes_on(program):
    worker = program("def reply(turn):\n    yield 'äbc'\n    yield 'def'\n    yield turn.ask('?')")
    worker.greet()
    run = worker.turn("x")
    ask = worker.until(Ask)[-1]
    worker.say(Reattach(run_id=run, text_offset=2))
    assert worker.until(Ask) == [Delta(run_id=run, text="cdef", text_offset=2), ask]
    worker.say(Answer(run_id=run, question_id=ask.question_id, answer="!"))
    done = worker.until(Complete)
    worker.say(Reattach(run_id=run, text_offset=6))
    assert worker.until(Complete) == [Delta(run_id=run, text="!", text_offset=6), done[-1]]


def test_shutdown_waits_for_the_turn(program):
    worker = program("def reply(turn):\n    return turn.ask('?')")
    worker.greet()
    run = worker.turn("x")
    ask = worker.until(Ask)[-1]
    worker.say(Shutdown(grace_seconds=10))
    worker.say(Answer(run_id=run, question_id=ask.question_id, answer="yes"))
    worker.until(Complete)
    assert worker.wait() == 0


@pytest.mark.parametrize("body", ["import time\ndef reply(turn):\n    time.sleep(1000)", HANDLERS["coroutine"]])
def test_the_end_of_the_supervisor_ends_the_worker(program, body):
    worker = program(body)
    worker.greet()
    worker.turn("x")
    worker.socket.shutdown(2)
    assert worker.wait() == 0


def test_print_and_a_closed_stdout_break_nothing(program):
    worker = program("def reply(turn):\n    print('noise')\n    return 'fine'")
    worker.greet()
    assert worker.reply("x") == "fine"
    assert worker.output() == "noise\n"


def test_a_handlers_exit_is_the_workers_exit(program):
    worker = program("import sys\ndef reply(turn):\n    sys.exit(9)")
    worker.greet()
    worker.turn("x")
    assert worker.wait() == 9


def test_a_frame_over_the_limit_fails_the_turn(program):
    worker = program("def reply(turn):\n    turn.ephemeral('x' * 9_000_000)")
    worker.greet()
    worker.turn("x")
    assert "limit" in worker.fail().message


def test_a_text_of_any_size_is_sent_in_frames_within_the_limit(program):
    worker = program("def reply(turn):\n    return '\U0001f600' * 1_000_000")
    worker.greet()
    assert worker.reply("x") == "\U0001f600" * 1_000_000

"""Handlers that do what a handler should not, or fail in an unusual way: the turn ends with what says so, and soon."""

from __future__ import annotations

import os
import signal

import pytest

from lobu_actors.contract.frames import Delta, Fail

IDLE_THREAD = (
    "import sys, threading, time\ndef stay():\n    threading.Thread(target=time.sleep, args=(1000,)).start()\n"
)
LEAVING = {
    "blocking": "def reply(turn):\n    stay()\n    sys.exit(9)",
    "coroutine": "async def reply(turn):\n    stay()\n    sys.exit(9)",
    "a thread of the loop": "import asyncio\nasync def reply(turn):\n"
    "    asyncio.get_running_loop().run_in_executor(None, time.sleep, 1000)\n    sys.exit(9)",
}


@pytest.mark.parametrize("kind", LEAVING)
def test_a_handler_that_leaves_takes_its_threads_with_it(program, kind):
    worker = program(IDLE_THREAD + LEAVING[kind])
    worker.greet(heartbeat_seconds=0.3)
    worker.turn("x")
    assert worker.wait() == 9


def test_a_handler_that_leaves_by_an_exception_takes_its_threads_with_it(program):
    odd = "class Odd(BaseException): pass\ndef reply(turn):\n    stay()\n    raise Odd('gone')"
    worker = program(IDLE_THREAD + odd)
    worker.greet(heartbeat_seconds=0.3)
    worker.turn("x")
    assert worker.wait() == 70
    assert "gone" in worker.output()


ENDS_ITS_OWN_TASK = {
    "raised": "raise asyncio.CancelledError",
    "of something that it waits for": "task = asyncio.create_task(asyncio.sleep(9))\n    task.cancel()\n    await task",
    "of itself": "asyncio.current_task().cancel()\n    await asyncio.sleep(9)",
}


@pytest.mark.parametrize("kind", ENDS_ITS_OWN_TASK)
def test_a_cancellation_that_nobody_asked_for_fails_the_turn_and_not_the_worker(program, kind):
    body = ENDS_ITS_OWN_TASK[kind]
    worker = program(f"import asyncio\nasync def reply(turn):\n    if turn.content == 'fine': return 'x'\n    {body}")
    worker.greet()
    run = worker.turn("x")
    assert worker.fail() == Fail(run_id=run, code="WORKER_FAILED", message="CancelledError")
    assert worker.reply("fine") == "x"


ODD_ERRORS = {
    "no text": ("raise TimeoutError", "TimeoutError"),
    "unspeakable": ("raise Mute", "Mute"),
    "over the limit": (
        "import os, sys\n    sys.stderr = open(os.devnull, 'w')\n    raise ValueError('x' * 9_000_000)",
        "ValueError: xxx",
    ),
    "one in a group": ("raise ExceptionGroup('tasks', [ValueError('a')])", "ValueError: a"),
    "two in a group": (
        "raise ExceptionGroup('tasks', [ValueError('a'), KeyError('b')])",
        "ExceptionGroup: tasks (2 sub-exceptions)",
    ),
    "a code that is no text": ("raise Fail(5)", "TypeError: a code is a str, not int"),
}


@pytest.mark.parametrize("kind", ODD_ERRORS)
def test_whatever_is_raised_fails_the_turn_and_not_the_worker(program, kind):
    raising, message = ODD_ERRORS[kind]
    mute = "class Mute(Exception):\n    def __str__(self): raise RuntimeError\n"
    worker = program(f"{mute}def reply(turn):\n    if turn.content == 'fine': return 'x'\n    {raising}")
    worker.greet()
    worker.turn("x")
    fail = worker.fail()
    assert (fail.code, fail.message[: len(message)]) == ("WORKER_FAILED", message)
    assert worker.reply("fine") == "x"


ODD_FAILS = {
    "in a group": (
        "raise ExceptionGroup('tasks', [Fail('CODE', 'why')])",
        Fail(run_id="r1", code="CODE", message="why"),
    ),
    "in a group in a group": (
        "raise ExceptionGroup('a', [ExceptionGroup('b', [Fail('CODE', 'why')])])",
        Fail(run_id="r1", code="CODE", message="why"),
    ),
    "with an error for a message": (
        "raise Fail('CODE', ValueError('why'))",
        Fail(run_id="r1", code="CODE", message="why"),
    ),
    "with a context that is no JSON": (
        "raise Fail('CODE', 'why', retryable=True, context={'a': object()})",
        Fail(run_id="r1", code="CODE", message="why", retryable=True),
    ),
}


@pytest.mark.parametrize("kind", ODD_FAILS)
def test_a_code_of_the_handlers_own_reaches_the_supervisor(program, kind):
    raising, expected = ODD_FAILS[kind]
    worker = program(f"def reply(turn):\n    {raising}")
    worker.greet()
    worker.turn("x")
    assert worker.fail() == expected


NO_FRAMES = {
    "options": ("turn.ask('?', options=[1, 2])", "an option is a str, not int"),
    "prompt": ("turn.ask(5)", "a prompt is a str, not int"),
    "status": ("turn.status(None)", "a status is a str, not NoneType"),
    "phase": ("turn.status('x', phase=5)", "a phase is a str, not int"),
    "tool": ("turn.status('x', tool=print)", "a tool is a str, not builtin_function_or_method"),
    "failure of the provider": ("turn.status('x', code=429)", "a code is a str, not int"),
    "remark": ("turn.ephemeral(b'x')", "a text is a str, not bytes"),
    "level": ("turn.log('x', level=20)", "a level is a str, not int"),
    "message for the log": ("turn.log(ValueError('x'))", "a message is a str, not ValueError"),
    "usage": ("turn.usage = 5", "usage is a dict, not int"),
    "calls": (
        "turn.tool_calls = [{'id': 'a', 'name': 'b', 'arguments': {}}]",
        "a call has an id, a name and arguments, each a str",
    ),
}


@pytest.mark.parametrize("kind", NO_FRAMES)
def test_what_makes_no_frame_is_said_to_the_handler(program, kind):
    statement, message = NO_FRAMES[kind]
    worker = program(f"def reply(turn):\n    {statement}")
    worker.greet()
    run = worker.turn("x")
    assert worker.fail() == Fail(run_id=run, code="WORKER_FAILED", message=f"TypeError: {message}")


@pytest.mark.parametrize("kind", ["def reply(turn):", "async def reply(turn):"])
@pytest.mark.parametrize("end", ["return 'child'", "raise ValueError", "turn.write('child')"])
def test_a_fork_of_a_worker_says_nothing_in_its_name_and_ends_with_the_handler(program, kind, end):
    worker = program(
        f"import os\n{kind}\n    pid = os.fork()\n    if pid == 0:\n        {end}\n        return\n"
        "    return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    worker.greet()
    assert worker.reply("x") == "0"


def test_a_fork_does_not_hold_the_workers_socket(program):
    worker = program(
        "import os, time\ndef reply(turn):\n    pid = os.fork()\n    if pid == 0:\n        time.sleep(1000)\n"
        "    turn.write(str(pid))\n    os._exit(3)"
    )
    worker.greet()
    worker.turn("x")
    forked = worker.hear()
    assert isinstance(forked, Delta)
    try:
        assert worker.lines.readline() == b""
    finally:
        os.kill(int(forked.text), signal.SIGKILL)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_handler_may_use_processes_of_multiprocessing(program, method):
    worker = program(
        "import multiprocessing\ndef reply(turn):\n"
        f"    with multiprocessing.get_context('{method}').Pool(1) as pool:\n        return str(pool.map(abs, [-1]))"
    )
    worker.greet()
    assert worker.reply("x") == "[1]"

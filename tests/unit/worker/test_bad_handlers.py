"""Handlers that do what a handler should not, or fail in an unusual way: the turn ends with what says so, and soon."""

from __future__ import annotations

import pytest

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

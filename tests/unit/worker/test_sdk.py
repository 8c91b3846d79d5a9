"""The SDK as a package: what it loads, what it says when a person starts a worker, and that it knows the contract."""

from __future__ import annotations

import os
import subprocess
import sys

from lobu_actors.contract import frames
from lobu_actors.worker import channel


def test_without_a_supervisor_it_says_so():
    done = subprocess.run(
        [sys.executable, "-m", "lobu_actors.agents.echo"],
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "supervisor starts it" in done.stderr


def test_the_sdk_loads_neither_trio_nor_what_is_slow():
    slow = ("trio", "asyncio", "inspect", "dataclasses", "socket", "subprocess", "attr", "uuid", "typing_extensions")
    program = (
        "import sys\nbefore = set(sys.modules)\nimport lobu_actors.worker\n"
        f"print({{n.split('.')[0] for n in set(sys.modules) - before}} & {set(slow)})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_sdk_and_contract_agree_on_the_constants():
    assert channel.PROTOCOL_VERSION == frames.PROTOCOL_VERSION
    assert channel.MAX_LINE_BYTES == frames.MAX_LINE_BYTES

"""That a cable that is cut is cut: what the campaigns rely on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.cluster.network import Direction, Network, network

PORT = 7777
SECONDS = 0.5  # without a datagram: it was dropped
LATE_SECONDS = 20.0  # for one that is to arrive
# Says that it is there, then whether it is reached, and sends something itself.
HOST = f"""
import socket, sys
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(("", {PORT}))
here.settimeout(float(sys.argv[2]))
print("up", flush=True)
try:
    print(here.recvfrom(100)[0].decode())
except TimeoutError:
    print("not reached")
here.sendto(b"heard", (sys.argv[1], {PORT}))
"""
WHOLE = {"heard", "reached"}
LEFT = {Direction.IN: {"heard"}, Direction.OUT: {"reached"}, Direction.BOTH: set()}
STAYS = """
import sys
from tests.cluster.network import network
with network() as made:
    made.add(sys.argv[1])
    print(made.number, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def host() -> Iterator[Network]:
    with network() as made:
        made.add("a")
        yield made


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("whole", [True, False])
def test_a_cut_is_in_its_direction_until_it_is_mended(host: Network, direction: Direction, whole: bool) -> None:
    assert _exchange(host, WHOLE) == WHOLE
    host.cut("a", direction, peers=None if whole else ["10.0.0.1", host.gateway, "10.0.0.2"])
    assert _exchange(host, LEFT[direction]) == LEFT[direction]
    host.heal("a")
    assert _exchange(host, WHOLE) == WHOLE


def test_a_cut_from_others_leaves_the_rest(host: Network) -> None:
    host.cut("a", peers=[host.add("b"), "10.0.0.1"])
    assert _exchange(host, WHOLE) == WHOLE


def test_what_a_killed_owner_left_is_removed() -> None:
    name = f"x{os.getpid()}"  # no other run of this test has it
    command = [sys.executable, "-c", STAYS, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        number = int(owner.stdout.readline())
        there = os.path.exists(f"/run/netns/lobu{number}-{name}")
        owner.kill()  # it has no chance to tidy up
    assert there
    with network() as one, network() as other:  # whoever else makes one meanwhile may be the one who tidies up
        assert not os.path.exists(f"/run/netns/lobu{number}-{name}")
        assert one.number != other.number


def _exchange(made: Network, expected: set[str]) -> set[str]:
    """What arrives between the host and us: `heard` from there, `reached` there. What is expected is waited for."""
    here_seconds, there_seconds = (LATE_SECONDS if word in expected else SECONDS for word in ("heard", "reached"))
    command = [*made.inside("a"), sys.executable, "-c", HOST, made.gateway, str(there_seconds)]
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as there,
    ):
        here.bind((made.gateway, PORT))
        here.settimeout(here_seconds)
        assert there.stdout is not None
        assert there.stdout.readline() == "up\n"
        here.sendto(b"reached", (made.addresses["a"], PORT))
        arrived = {there.stdout.readline().strip()}
        there.wait(LATE_SECONDS)
        with suppress(TimeoutError):
            arrived.add(here.recvfrom(100)[0].decode())
    return arrived & WHOLE

"""What is said to the service manager, as it arrives on its socket; and the sockets that it passes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.systemd.notify import FIRST_DESCRIPTOR, Notifier, passed_sockets


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def environment(manager: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.getsockname(), "PATH": "/bin", **more}


def said(manager: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(manager.recv(4096).decode())
        except BlockingIOError:
            return found


def test_each_message(manager: socket.socket) -> None:
    notifier = Notifier(environment(manager))
    notifier.ready("serves")
    notifier.status("busy")
    notifier.stopping("drains")
    notifier.extend(1.5)
    assert said(manager) == [
        "READY=1\nSTATUS=serves",
        "STATUS=busy",
        "STOPPING=1\nSTATUS=drains",
        "EXTEND_TIMEOUT_USEC=1500000",
    ]


def test_an_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        name = f"lobu-test-{os.getpid()}"
        listening.bind(f"\0{name}")
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready("serves")
        assert listening.recv(100) == b"READY=1\nSTATUS=serves"


def test_children_are_not_told_the_address(manager: socket.socket) -> None:
    variables = environment(manager, WATCHDOG_USEC="1000000", WATCHDOG_PID=str(os.getpid()))
    Notifier(variables)
    assert variables == {"PATH": "/bin"}


def test_a_beat_is_due_twice_in_what_the_manager_waits(manager: socket.socket) -> None:
    notifier = Notifier(environment(manager, WATCHDOG_USEC="600000000", WATCHDOG_PID=str(os.getpid())))
    first = notifier.beat()
    again = notifier.beat()
    assert first is not None
    assert again is not None
    assert 0 < again <= first <= 300.0
    assert said(manager) == ["WATCHDOG=1"]


@pytest.mark.parametrize("more", [{}, {"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}])
def test_no_beat_where_none_is_waited_for(manager: socket.socket, more: dict[str, str]) -> None:
    assert Notifier(environment(manager, **more)).beat() is None
    assert said(manager) == []


def test_nothing_happens_without_a_service_manager(tmp_path: Path) -> None:
    for variables in ({}, {"NOTIFY_SOCKET": str(tmp_path / "nobody")}):
        notifier = Notifier(variables)
        notifier.ready("serves")
        notifier.extend(3.0)
        assert notifier.beat() is None


def test_sockets_that_are_meant_for_this_process() -> None:
    program = (
        "import os, sys; from supervisor.systemd.notify import passed_sockets\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='x')\n"
        "found = passed_sockets(os.environ)\n"
        "print(found[0].getsockname()[1], found[0].get_inheritable(), sorted(n for n in os.environ if 'LISTEN' in n))"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # `sh` has the socket as its standard input; the program must find it where the protocol says.
        command = ["sh", "-c", f'exec "$@" {FIRST_DESCRIPTOR}<&0', "sh", sys.executable, "-c", program]
        done = subprocess.run(command, stdin=listening, capture_output=True, text=True, timeout=30, check=False)
        assert done.stdout.strip() == f"{listening.getsockname()[1]} False []", done.stderr


def test_sockets_that_are_meant_for_another_process_are_left_alone() -> None:
    variables = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    assert passed_sockets(variables) == []
    assert passed_sockets({}) == []
    assert variables == {}


def test_a_reload_has_a_beginning_with_its_time_and_an_end(manager: socket.socket) -> None:
    """systemd ignores a RELOADING=1 whose time is older than the reload it asked for."""
    notifier = Notifier(environment(manager))
    before = time.monotonic_ns() // 1000
    notifier.reloading("reads")
    notifier.ready("serves")
    begun, ended = said(manager)
    first, clock, status = begun.split("\n")
    assert (first, status) == ("RELOADING=1", "STATUS=reads")
    assert before <= int(clock.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert ended == "READY=1\nSTATUS=serves"

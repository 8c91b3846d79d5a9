"""Hosts with a network of their own on one machine, whose cables are cut in one direction or both.

A bridge in the namespace of this process, and for each name a network namespace with one cable (veth) to it. Cuts are
made at the bridge's end of a cable, by a filter that drops silently: neither end hears a reset. A cut may be from some
addresses only, so that clients on the bridge still reach a host that no longer reaches its database.

The name of the bridge claims the subnet; it carries its owner's process id, and one whose owner is gone is removed by
the next who looks. One looks at a time: of two, the slower would remove what the faster has made there meanwhile. Needs
root, `ip`, `tc`, `nsenter`, and a kernel with veth, bridges and cls_bpf.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum

import psutil

PROGRAMS = ("ip", "tc", "nsenter")
NETWORKS = 200
# Offsets from the Ethernet header; verdicts of a classifier (linux/pkt_cls.h), the first for "no opinion".
SOURCE, DESTINATION = 26, 30
PASS, DROP = 0xFFFFFFFF, 2


class NoNetwork(Exception):
    """This machine cannot make one; the sentence says why."""


class Direction(Enum):
    """As the host sees it."""

    IN = "in"
    OUT = "out"
    BOTH = "both"


class Network:
    """Made by `network`. Addresses are of the form 10.213.N.x; this process has `gateway`."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.bridge = f"lobu{number}"
        self.gateway = f"10.213.{number}.1"
        self.addresses: dict[str, str] = {}

    def add(self, name: str) -> str:
        """A namespace with its cable; gives its address."""
        address = self.addresses[name] = f"10.213.{self.number}.{len(self.addresses) + 2}"
        space, cable = self._space(name), self._cable(name)
        _do("ip", "netns", "add", space)
        _do("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        _do("ip", "link", "set", cable, "master", self.bridge, "up")
        _do("ip", "-n", space, "link", "set", "lo", "up")
        _do("ip", "-n", space, "address", "add", f"{address}/24", "dev", "eth0")
        _do("ip", "-n", space, "link", "set", "eth0", "up")
        _do("tc", "qdisc", "add", "dev", cable, "clsact")
        return address

    def inside(self, name: str) -> tuple[str, ...]:
        """What goes before a command that is to run there. It becomes the command: the process id is the same."""
        return ("nsenter", f"--net=/run/netns/{self._space(name)}", "--")

    def cut(self, name: str, direction: Direction = Direction.BOTH, *, peers: Sequence[str] | None = None) -> None:
        """From all, or from those addresses only. Once a direction until `heal`."""
        cable = self._cable(name)
        if direction is not Direction.IN:  # what the host sends comes in at the bridge's end
            _drop(cable, "ingress", DESTINATION, peers)
        if direction is not Direction.OUT:
            _drop(cable, "egress", SOURCE, peers)

    def heal(self, name: str) -> None:
        for side in ("ingress", "egress"):
            _do("tc", "filter", "delete", "dev", self._cable(name), side)

    def _space(self, name: str) -> str:
        return f"{self.bridge}-{name}"

    def _cable(self, name: str) -> str:
        return f"{self.bridge}{name}"


@contextmanager
def network() -> Iterator[Network]:
    """Raises NoNetwork. Whatever runs in it must have ended before it does."""
    with _alone():
        made = _claim()
    try:
        _do("ip", "address", "add", f"{made.gateway}/24", "dev", made.bridge)
        _do("ip", "link", "set", made.bridge, "up")
        yield made
    finally:
        _remove(made.number)


def why_not() -> str | None:
    """Why there can be no network here; None: there can."""
    try:
        with network() as probe:
            probe.add("probe")
            probe.cut("probe", peers=[probe.gateway])
            probe.heal("probe")
            _do(*probe.inside("probe"), "true")
    except NoNetwork as error:
        return str(error)
    return None


@contextmanager
def _alone() -> Iterator[None]:
    """Among all who look for a network in this namespace, whichever process they are in."""
    folder = os.open("/sys/class/net", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _claim() -> Network:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if os.geteuid() != 0 or missing:
        raise NoNetwork("it needs root" if not missing else f"these programs are missing: {', '.join(missing)}")
    for number in range(1, NETWORKS):
        _remove_left_behind(number)
        try:
            _do("ip", "link", "add", f"lobu{number}", "type", "bridge")
        except NoNetwork as error:
            if "exists" not in str(error):
                raise
            continue
        _do("ip", "link", "set", f"lobu{number}", "alias", f"owner {os.getpid()}")
        return Network(number)
    raise NoNetwork("every network is taken; `ip link` shows the bridges lobu1, lobu2, …")


def _remove_left_behind(number: int) -> None:
    try:
        with open(f"/sys/class/net/lobu{number}/ifalias") as file:
            owner = file.read().split()
    except OSError:  # there is none
        return
    if len(owner) == 2 and not psutil.pid_exists(int(owner[1])):
        with suppress(NoNetwork, OSError):  # somebody else removes it
            _remove(number)


def _remove(number: int) -> None:
    """Cables first: with their namespace alone they would go in a while, and their names are wanted again."""
    for cable in os.listdir(f"/sys/class/net/lobu{number}/brif"):
        _do("ip", "link", "delete", cable)
    spaces = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    for space in spaces:
        if space.startswith(f"lobu{number}-"):
            _do("ip", "netns", "delete", space)
    _do("ip", "link", "delete", f"lobu{number}")


def _drop(cable: str, side: str, offset: int, peers: Sequence[str] | None) -> None:
    """One filter; without `peers` for every packet, whatever its protocol."""
    steps = [f"6 0 0 {DROP}"]
    if peers is not None:
        tests = [
            f"21 {len(peers) - number} 0 {int(ipaddress.IPv4Address(peer))}" for number, peer in enumerate(peers)
        ]  # equal: jump behind the verdict PASS
        steps = [f"32 0 0 {offset}", *tests, f"6 0 0 {PASS}", *steps]
    program = ",".join([str(len(steps)), *steps, ""])
    protocol = "all" if peers is None else "ip"
    _do(
        "tc", "filter", "add", "dev", cable, side, "protocol", protocol, "bpf", "direct-action", "bytecode", program
    )  # fmt: skip


def _do(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if result.returncode != 0:
        said = " ".join((result.stderr or result.stdout).split())
        raise NoNetwork(f"`{' '.join(command)}` failed: {said}")

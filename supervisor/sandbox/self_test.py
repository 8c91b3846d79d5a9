"""The proof, when the supervisor starts, that a sandbox holds on this host: `probe` is run in a real one and tries.

Owns what it must not be able to do. Nothing is believed that the probe did not say itself, word for word.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROBE = str(Path(__file__).with_name("probe.py"))
MOST_PROCESSES = 8  # the sandbox's own: its init, a relay, the probe


@contextmanager
def baits(state_dir: Path) -> Iterator[dict[str, Any]]:
    """What the probe is told to try: files, listeners and a process of this host. They are there until the end."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX) as abstract,
        tempfile.NamedTemporaryFile(prefix="lobu-bait-") as temporary,
        tempfile.NamedTemporaryFile(prefix=".bait-", dir=state_dir) as secret,
    ):
        name = f".lobu-bait-{os.urandom(8).hex()}"
        abstract.bind(f"\0{name}")
        abstract.listen()
        yield {
            "unwritable": [f"{folder}/{name}" for folder in ("", "/usr", "/etc", "/dev", "/run", str(state_dir))],
            "unreadable": ["/etc/shadow", "/sys/kernel", temporary.name, secret.name],
            "ports": [listener.getsockname()[1]],
            "address": own_address(),
            "abstract": [name],
            "pid": os.getpid(),
            "most_processes": MOST_PROCESSES,
        }


def verdict(answer: bytes) -> str | None:
    """None when the sandbox holds, else half a sentence that says what does not."""
    try:
        said = json.loads(answer)
        broken, missing = said["broken"], said["missing"]
    except (ValueError, KeyError, TypeError):
        return "its test gave no answer"
    if broken or missing:
        return "; ".join(map(str, _words(broken) + _words(missing)))
    return None


def _words(found: Sequence[object]) -> list[object]:
    return list(found)[:3]


def own_address() -> str:
    """An address of this host beyond loopback, if it has one. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])

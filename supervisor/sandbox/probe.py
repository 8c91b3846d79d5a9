"""Inside a sandbox: tries what must not be possible, and says on the worker's descriptor what was, as one JSON line.

`probe.py FACTS`: a JSON object that `self_test` made. Standard library only. Must change nothing that outlives it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from typing import Any

WAIT_SECONDS = 2.0


def tried(facts: dict[str, Any]) -> dict[str, list[str]]:
    """`broken`: what should not have been possible. `missing`: what a worker needs and does not have."""
    broken: list[str] = []
    for path in facts["unwritable"]:
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            os.unlink(path)
            broken.append(f"it can write {path}")
    broken += [f"it can read {path}" for path in facts["unreadable"] if _readable(path)]
    for port in facts["ports"]:
        if _connects(socket.AF_INET, ("127.0.0.1", port)) or _connects(socket.AF_INET, (facts["address"], port)):
            broken.append("it reaches a listener on the host")
    for name in facts["abstract"]:
        if _connects(socket.AF_UNIX, f"\0{name}"):
            broken.append("it reaches an abstract socket of the host")
    interfaces = [name for _, name in socket.if_nameindex()]
    if any(name != "lo" for name in interfaces):
        broken.append(f"it has the network interfaces {', '.join(interfaces)}")
    processes = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    if len(processes) > facts["most_processes"] or facts["pid"] == os.getppid():
        broken.append(f"it sees {len(processes)} processes")
    with open("/proc/self/status") as file:
        status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    if int(status["CapEff"], 16) or int(status["CapBnd"], 16) or status["NoNewPrivs"].strip() != "1":
        broken.append("it has or can get capabilities")
    return {"broken": broken, "missing": _missing()}


def _missing() -> list[str]:
    missing: list[str] = []
    for folder in (os.environ["WORKSPACE_DIR"], "/tmp"):
        path = os.path.join(folder, f".probe-{os.getpid()}")
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            os.unlink(path)
        except OSError as error:
            missing.append(f"it cannot write {folder}: {error.strerror}")
    return missing


def _readable(path: str) -> bool:
    try:
        if os.path.isdir(path):
            return bool(os.listdir(path))
        os.close(os.open(path, os.O_RDONLY))
    except OSError:
        return False
    return True


def _connects(family: int, address: Any) -> bool:
    with socket.socket(family) as client:
        client.settimeout(WAIT_SECONDS)
        try:
            client.connect(address)
        except OSError:
            return False
    return True


if __name__ == "__main__":
    with socket.socket(fileno=int(os.environ["LOBU_WORKER_FD"])) as link:
        link.sendall(json.dumps(tried(json.loads(sys.argv[1]))).encode() + b"\n")

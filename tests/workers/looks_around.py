"""A worker that looks for what it should not know: writes all that it finds of processes into its workspace, as JSON,
and all of its own memory beside it. Any message makes it look."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from lobu_actors.worker import BlockingTurn, serve

BORN = os.getpid()  # where it was loaded


def _text(path: str) -> str | None:
    try:
        return Path(path).read_bytes().decode("latin-1")
    except OSError:
        return None


def _descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the one that listed
            continue
    return found


def _memory(path: Path) -> None:
    with open("/proc/self/mem", "rb", buffering=0) as memory, path.open("wb") as file:
        for line in Path("/proc/self/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            start, _, end = place.partition("-")
            if not rights.startswith("rw"):
                continue
            memory.seek(int(start, 16))
            try:
                file.write(memory.read(int(end, 16) - int(start, 16)))
            except (OSError, OverflowError):
                continue


def reply(turn: BlockingTurn) -> Iterator[str]:
    state_dir = Path(turn.workspace).parent.parent
    processes = [name for name in os.listdir("/proc") if name.isdigit()]
    found = {
        "uid": os.getuid(),
        "niceness": os.nice(0),
        "oom score": _text("/proc/self/oom_score_adj"),
        "forked": os.getpid() != BORN,
        "environ": dict(os.environ),
        "environ block": _text("/proc/self/environ"),
        "parent's environ": _text(f"/proc/{os.getppid()}/environ"),
        "descriptors": _descriptors(),
        "environs": {pid: _text(f"/proc/{pid}/environ") for pid in processes},
        "command lines": {pid: _text(f"/proc/{pid}/cmdline") for pid in processes},
        "key files": {name: _text(str(state_dir / name)) for name in ("admin_key", "jwt_keys")},
        "other workspaces": [str(path) for path in state_dir.glob("workspaces/*/.openclaw/*")],
    }
    Path(turn.workspace, "found.json").write_text(json.dumps(found))
    _memory(Path(turn.workspace, "memory"))
    yield turn.workspace


if __name__ == "__main__":
    serve(reply, name="looks_around")

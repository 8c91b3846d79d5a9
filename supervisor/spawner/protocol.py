"""The messages between a supervisor and its spawner: one JSON object in one SOCK_SEQPACKET message, at most 128 KiB.

Owns their form only: pure, no I/O. Knows nothing of who sends them or what they do to processes.

SOCK_SEQPACKET keeps the boundaries of messages, so that file descriptors (SCM_RIGHTS) arrive with exactly the message
that they belong to, and a send either happens whole or not at all.
"""

import json
from typing import Any, NamedTuple

PROTOCOL_VERSION = 1
MAX_MESSAGE_BYTES = 128 * 1024
FDS_OF_SPAWNED = 2  # the supervisor's end of the worker's socket, then a pidfd of the worker
WORKER_FD = 3  # where each worker finds its end of the socket; small, so that a shell can name it
MARK = "LOBU_WORKER_ID"  # in each worker's environment; finds descendants that left its session

# The variables that are another worker's another value; a zygote has none of them.
OWN_VARIABLES = frozenset({"HOME", "WORKSPACE_DIR", "WORKER_TOKEN"})

EXEC = "exec"
ZYGOTE = "zygote"


class ProtocolError(ValueError):
    """A message that cannot be sent or is not one of this protocol; the text says why."""


# --- supervisor -> spawner


class Spawn(NamedTuple):
    """Start a worker. `env` is the whole environment, but for `LOBU_WORKER_FD` and the mark, which the spawner adds.

    `label` is kept for the worker and given to the next supervisor with it; the spawner does not look into it. What has
    none works for no conversation, and is not frozen.
    `kind` is how: EXEC executes `argv`; ZYGOTE forks from the process that was preloaded with the same `argv` and
    `env` but for OWN_VARIABLES, and executes when there is none to fork from. `limits` are resource limits by their
    name in `resource`, in its units; `user` is the (uid, gid) to run as, None for the spawner's own.
    """

    worker_id: str
    argv: list[str]
    env: dict[str, str]
    cwd: str
    label: str = ""
    kind: str = EXEC
    limits: dict[str, int] = {}  # noqa: RUF012 - never changed
    user: list[int] | None = None


class Preload(NamedTuple):
    """Keep a zygote ready that workers of this `argv` and `env` can be forked from; what is in OWN_VARIABLES is left
    out. Holds until another supervisor connects."""

    argv: list[str]
    env: dict[str, str]


class Relabel(NamedTuple):
    """Replace a worker's label; nothing when it is gone already."""

    worker_id: str
    label: str


class Kill(NamedTuple):
    """SIGKILL to the worker's whole process group; nothing when it is gone already."""

    worker_id: str


class Trust(NamedTuple):
    """Freeze all workers at `until` (seconds of CLOCK_MONOTONIC) unless a later time was said by then.

    From then on they are also frozen when the supervisor is gone, since others may take its place at once.
    """

    until: float


class Thaw(NamedTuple):
    """Let all workers go on, and freeze them at `until` as `Trust` says; with None, never."""

    until: float | None


class Ping(NamedTuple):
    """Say `Pong`. Only to be asked of a spawner whose `Up` says that it answers."""


class End(NamedTuple):
    """End all workers, then the spawner itself."""


# --- spawner -> supervisor


class Up(NamedTuple):
    """The spawner's first message: it takes requests. That many `Running` follow, before anything else.

    `pongs`: it answers a `Ping`, which one of the release before does not know.
    """

    protocol: int
    pid: int
    running: int
    pongs: bool = False


class Running(NamedTuple):
    """A worker that another supervisor had started; carries FDS_OF_SPAWNED descriptors, as `Spawned` does."""

    worker_id: str
    pid: int
    started_at: float
    label: str


class Spawned(NamedTuple):
    """The program was executed; carries FDS_OF_SPAWNED descriptors. `started_at` is in seconds since boot."""

    worker_id: str
    pid: int
    started_at: float


class SpawnFailed(NamedTuple):
    """No process came to be. `reason` is one sentence for the operator."""

    worker_id: str
    reason: str


class Exited(NamedTuple):
    """The worker's leader ended and its process group was sent SIGKILL. One of `exit_code` and `signal` is set."""

    worker_id: str
    exit_code: int | None
    signal: int | None


class Output(NamedTuple):
    """Whole lines of a worker's stdout and stderr; `dropped_bytes` were left out before them for lack of budget."""

    worker_id: str
    text: str
    dropped_bytes: int


class Froze(NamedTuple):
    """All workers were frozen, as `Trust` says; `Thaw` is awaited."""


class Pong(NamedTuple):
    """The answer to `Ping`."""


class Notice(NamedTuple):
    """A sentence for the operator, about no worker in particular."""

    text: str


Request = Spawn | Preload | Relabel | Kill | Trust | Thaw | Ping | End
Reply = Up | Running | Spawned | SpawnFailed | Exited | Output | Froze | Pong | Notice

_REQUESTS: dict[str, type[Any]] = {
    "spawn": Spawn,
    "preload": Preload,
    "relabel": Relabel,
    "kill": Kill,
    "trust": Trust,
    "thaw": Thaw,
    "ping": Ping,
    "end": End,
}
_REPLIES: dict[str, type[Any]] = {
    "up": Up,
    "running": Running,
    "spawned": Spawned,
    "spawn-failed": SpawnFailed,
    "exited": Exited,
    "output": Output,
    "froze": Froze,
    "pong": Pong,
    "notice": Notice,
}
_NAMES: dict[type[Any], str] = {kind: name for name, kind in (_REQUESTS | _REPLIES).items()}


def _wire(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


_FIELDS: dict[type[Any], tuple[tuple[str, str], ...]] = {
    kind: tuple((name, _wire(name)) for name in kind._fields) for kind in _NAMES
}


def encode(message: Request | Reply) -> bytes:
    """The message's bytes. Raises ProtocolError when they are more than MAX_MESSAGE_BYTES."""
    kind = type(message)
    wire: dict[str, Any] = {"type": _NAMES[kind]}
    for name, key in _FIELDS[kind]:
        wire[key] = getattr(message, name)
    data = json.dumps(wire, separators=(",", ":")).encode("ascii")
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a `{_NAMES[kind]}` message of {len(data)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    return data


def _decode(data: bytes, kinds: dict[str, type[Any]]) -> Any:
    try:
        wire = json.loads(data)
        kind = kinds[wire["type"]]
        given = {name: wire[key] for name, key in _FIELDS[kind] if key in wire or name not in kind._field_defaults}
        return kind(**given)
    except (ValueError, KeyError, TypeError) as error:
        raise ProtocolError(f"not a message of this protocol: {error!r}") from error


def decode_request(data: bytes) -> Request:
    """What a supervisor asked. Raises ProtocolError."""
    request: Request = _decode(data, _REQUESTS)
    return request


def decode_reply(data: bytes) -> Reply:
    """What a spawner said. Raises ProtocolError."""
    reply: Reply = _decode(data, _REPLIES)
    return reply

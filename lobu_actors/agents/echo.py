"""A worker for trying things out and for tests: the first word of the message says what it does.

- `sleep N`: waits N seconds, can be cancelled, then replies
- `crash [N]`: ends at once with exit code N, 1 by default; `crash mid [N]`: after a piece of its reply
- `exit0`: ends at once with exit code 0
- `close`: closes its socket and lives on
- `garbage`: writes a line that is no frame
- `fail CODE text`: fails the turn with that code
- `ask question…`: asks the person and replies with the answer
- `stream N [DELAY_MS]`: N numbered words, one a piece
- `spawn [group | session]`: starts a process that sleeps 1000 s, in its own process group or session if so said, and
  replies with its pid
- `hang`: waits for ever, deaf to cancellation; heartbeats go on
- `freeze`: stops its own process, so that heartbeats stop too
- `print text`: prints to stdout, which is a log
- `env`: replies with its environment as JSON
- `history`: replies with the number of messages before this turn
- anything else comes back, word by word
"""

import os
from collections.abc import Callable, Iterator

from lobu_actors.worker import BlockingTurn, Fail, serve

Reply = Iterator[str]


def _sleep(turn: BlockingTurn, words: list[str]) -> Reply:
    turn.sleep(float(words[0]))
    yield f"slept {words[0]}"


def _crash(turn: BlockingTurn, words: list[str]) -> Reply:
    if words[:1] == ["mid"]:
        words = words[1:]
        yield "half a re"
    os._exit(int(words[0]) if words else 1)


def _exit0(turn: BlockingTurn, words: list[str]) -> Reply:
    os._exit(0)


def _close(turn: BlockingTurn, words: list[str]) -> Reply:
    import socket

    with socket.socket(fileno=os.dup(_descriptor())) as own:
        own.shutdown(socket.SHUT_WR)
    turn.sleep(1000)
    yield ""


def _garbage(turn: BlockingTurn, words: list[str]) -> Reply:
    yield "before the garbage"
    os.write(_descriptor(), b"this is no frame\n")
    turn.sleep(1000)


def _fail(turn: BlockingTurn, words: list[str]) -> Reply:
    raise Fail(words[0] if words else "WORKER_FAILED", " ".join(words[1:]))


def _ask(turn: BlockingTurn, words: list[str]) -> Reply:
    yield turn.ask(" ".join(words) or "What?")


def _stream(turn: BlockingTurn, words: list[str]) -> Reply:
    delay = float(words[1]) / 1000 if len(words) > 1 else 0.0
    for number in range(int(words[0])):
        if delay:
            turn.sleep(delay)
        yield f"word{number} "


def _spawn(turn: BlockingTurn, words: list[str]) -> Reply:
    import subprocess

    place = words[0] if words else ""
    child = subprocess.Popen(
        ["sleep", "1000"], process_group=0 if place == "group" else None, start_new_session=place == "session"
    )
    yield str(child.pid)


def _hang(turn: BlockingTurn, words: list[str]) -> Reply:
    import threading

    threading.Event().wait()
    yield ""


def _freeze(turn: BlockingTurn, words: list[str]) -> Reply:
    import signal

    os.kill(os.getpid(), signal.SIGSTOP)
    yield "thawed"


def _print(turn: BlockingTurn, words: list[str]) -> Reply:
    print(*words)
    yield "printed"


def _env(turn: BlockingTurn, words: list[str]) -> Reply:
    import json

    yield json.dumps(dict(os.environ))


def _history(turn: BlockingTurn, words: list[str]) -> Reply:
    yield str(len(turn.history()))


_COMMANDS: dict[str, Callable[[BlockingTurn, list[str]], Reply]] = {
    "sleep": _sleep,
    "crash": _crash,
    "exit0": _exit0,
    "close": _close,
    "garbage": _garbage,
    "fail": _fail,
    "ask": _ask,
    "stream": _stream,
    "spawn": _spawn,
    "hang": _hang,
    "freeze": _freeze,
    "print": _print,
    "env": _env,
    "history": _history,
}


def reply(turn: BlockingTurn) -> Reply:
    """Do what the first word says, or give the text back."""
    first, *words = turn.content.split() or [""]
    command = _COMMANDS.get(first)
    if command is not None:
        yield from command(turn, words)
        return
    before = ""
    for word in turn.content.split(" "):
        yield before + word
        before = " "


def _descriptor() -> int:
    return int(os.environ["LOBU_WORKER_FD"])


if __name__ == "__main__":
    serve(reply, name="echo")

"""Workers that harm all around them: `hostile.py HABIT`. Each comes up as it should and does its worst in a turn.

Standard library only, and for any interpreter: such a worker is to run as a user that sees nothing of this project.
"""

import contextlib
import json
import mmap
import os
import signal
import socket
import sys
import threading
import time

Json = dict
wire = socket.socket(fileno=int(os.environ["LOBU_WORKER_FD"]))
lines = wire.makefile("rb")
workspace = os.environ["WORKSPACE_DIR"]


def send(**frame: object) -> None:
    wire.sendall(json.dumps(frame).encode() + b"\n")


def beat_for_ever() -> None:
    while True:
        send(type="heartbeat")
        time.sleep(0.5)


def beat() -> None:
    """Looks alive from now on."""
    threading.Thread(target=beat_for_ever, daemon=True).start()


def complete(run: str, text: str) -> None:
    send(type="complete", runId=run, text=text)


def neighbour(run: str, content: str) -> None:
    """No harm at all."""
    send(type="delta", runId=run, text=content)
    complete(run, content)


def fork_bomb(run: str, content: str) -> None:
    beat()
    while True:
        with contextlib.suppress(OSError):
            os.fork()


def session_bomb(run: str, content: str) -> None:
    """Each in a session of its own, which is also a scheduling group of its own where the kernel makes such."""
    beat()
    while True:
        with contextlib.suppress(OSError):
            if os.fork() == 0:
                os.setsid()


def cpu_hog(run: str, content: str) -> None:
    beat()
    for _ in range(8):
        if os.fork() == 0:
            while True:
                pass
    time.sleep(1000)


def memory_hog(run: str, content: str) -> None:
    beat()
    kept = []
    while True:
        kept.append(b"x" * 1024 * 1024)


def disk_filler(run: str, content: str) -> None:
    beat()
    number = 0
    while True:
        number += 1
        with open(f"{workspace}/temp/{number}", "wb") as file:
            for _ in range(8):
                file.write(b"x" * 1024 * 1024)
        send(type="delta", runId=run, text=".")  # it makes progress, however slow the disk


def million_files(run: str, content: str) -> None:
    beat()
    for number in range(1_000_000):
        with open(f"{workspace}/{number}", "wb"):
            pass
        if number % 100 == 0:
            send(type="delta", runId=run, text=".")  # it makes progress, however slow the disk


def deaf(run: str, content: str) -> None:
    """Ignores every signal that can be ignored, and every frame."""
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    send(type="delta", runId=run, text="never")
    beat_for_ever()


def daemon(run: str, content: str) -> None:
    """Leaves a process in a session of its own, whose environment does not say whose it is."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve("/bin/sleep", ["sleep", "98765"], {})
        os._exit(0)
    os.wait()  # it has left it
    os._exit(0)


def daemon_of_another(run: str, content: str) -> None:
    """Leaves a process that says that it is another worker's."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve("/bin/sleep", ["sleep", "98765"], {"LOBU_WORKER_ID": content})
        os._exit(0)
    os.wait()  # it has left it
    os._exit(0)


def text_flood(run: str, content: str) -> None:
    data = json.dumps({"type": "delta", "runId": run, "text": "x" * 1000}).encode() + b"\n"
    while True:
        wire.sendall(data * 50)


def question_flood(run: str, content: str) -> None:
    """Each of them is a write to the database."""
    beat()
    number = 0
    while True:
        number += 1
        send(type="ask", runId=run, questionId=str(number), prompt="?")


def frame_flood(run: str, content: str) -> None:
    """Small frames that are progress each, so that only the whole turn's time ends it."""
    data = json.dumps({"type": "status", "runId": run, "status": "busy"}).encode() + b"\n"
    while True:
        wire.sendall(data * 500)


def stale_flood(run: str, content: str) -> None:
    """Frames that are dropped."""
    beat()
    data = json.dumps({"type": "delta", "runId": "other", "text": "x"}).encode() + b"\n"
    while True:
        wire.sendall(data * 500)


def never_reads(run: str, content: str) -> None:
    send(type="delta", runId=run, text="go on")
    beat_for_ever()


def link_storm(run: str, content: str) -> None:
    beat()
    for number in range(1_500):
        if number % 100 == 0:
            send(type="delta", runId=run, text=".")  # it makes progress, however slow the disk
        os.symlink("/etc/passwd" if number % 2 else workspace, f"{workspace}/output/{number}")
    complete(run, "." * 15)


def _session() -> str:
    path = f"{workspace}/.openclaw/session.jsonl"
    if os.path.lexists(path):
        os.unlink(path)
    return path


def session_link(run: str, content: str) -> None:
    os.symlink("/etc/passwd", _session())
    complete(run, "done")


def session_fifo(run: str, content: str) -> None:
    os.mkfifo(_session())
    complete(run, "done")


def session_device(run: str, content: str) -> None:
    try:
        os.mknod(_session(), 0o20666, os.makedev(1, 5))
        told = "made"
    except OSError as error:
        told = str(error.strerror)
    complete(run, told)


def session_sparse(run: str, content: str) -> None:
    with open(_session(), "wb") as file:
        file.truncate(3 * 1024**3)
    complete(run, "done")


def output_flood(run: str, content: str) -> None:
    beat()
    while True:
        os.write(1, b"a line of no use\n" * 1000)


def crashes(run: str, content: str) -> None:
    os._exit(int(content))


def shared_memory(run: str, content: str) -> None:
    """Memory that no limit of a process counts; it stops at 1 GiB, since the machine is needed."""
    beat()
    memory = mmap.mmap(-1, 1024**3)
    for page in range(0, len(memory), 4096):
        memory[page] = 1
    time.sleep(1000)


def main() -> None:
    habit = globals()[sys.argv[1]]
    for line in lines:
        frame = json.loads(line)
        if frame["type"] == "hello":
            capabilities = ["cancel", "steer"]
            send(type="ready", protocol=1, name="hostile", version="1", capabilities=capabilities)
        elif frame["type"] == "turn":
            habit(frame["runId"], frame["messages"][0]["content"])


if __name__ == "__main__":
    main()

"""A worker that runs what it is told: each turn's content is Python code, whose `print`s are the reply.

An exception's name and text end the reply. Standard library only. What the code leaves in its globals stays for the
next turn.
"""

import contextlib
import io
import json
import os
import socket

link = socket.socket(fileno=int(os.environ["LOBU_WORKER_FD"]))
lines = link.makefile("rb")


def send(**frame: object) -> None:
    link.sendall(json.dumps(frame).encode() + b"\n")


def main() -> None:
    names: dict[str, object] = {}
    for line in lines:
        frame = json.loads(line)
        if frame["type"] == "hello":
            names["hello"] = frame
            send(type="ready", protocol=1, name="runs-python", version="1", capabilities=[])
        elif frame["type"] == "turn":
            said = io.StringIO()
            try:
                with contextlib.redirect_stdout(said):
                    exec(frame["messages"][0]["content"], names)
            except BaseException as error:
                said.write(f"{type(error).__name__}: {error}")
            send(type="delta", runId=frame["runId"], text=said.getvalue())
            send(type="complete", runId=frame["runId"])
        elif frame["type"] == "shutdown":
            return


if __name__ == "__main__":
    main()

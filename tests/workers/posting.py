"""A worker that keeps its session elsewhere and posts it: it says what the snapshot address answered.

`get`, `delete`, `post LINE` (the snapshot so far and one line more), `post-other` (as another run), `post-failed`,
`post-then-crash LINE`, `summary` (of its turn frame). The address is in EDGE_URL. Standard library only.
"""

import json
import os
import socket
import urllib.error
import urllib.request

URL = os.environ["EDGE_URL"] + "/worker/transcript/snapshot"


def call(method: str, token: str, body: object = None) -> tuple[int, dict[str, object]]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(URL, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def reply(turn: dict[str, object]) -> object:
    token, run = turn["runToken"], turn["runId"]
    verb, _, line = turn["messages"][0]["content"].partition(" ")
    if verb == "summary":
        return turn.get("summary")
    if verb in ("get", "delete"):
        return call(verb.upper(), token)
    status, so_far = call("GET", token)
    text = (so_far["snapshotJsonl"] if status == 200 else "") + line + "\n"
    body = {"runId": run, "terminalStatus": "completed", "snapshotJsonl": text}
    if verb == "post-other":
        return call("POST", token, body | {"runId": "another"})
    if verb == "post-failed":
        return call("POST", token, body | {"terminalStatus": "failed"})
    first = call("POST", token, body)
    if verb == "post-then-crash":
        os._exit(3)
    return [first, call("POST", token, body)]


def main() -> None:
    wire = socket.socket(fileno=int(os.environ["LOBU_WORKER_FD"]))
    for line in wire.makefile("rb"):
        frame = json.loads(line)
        answer: dict[str, object] | None = None
        if frame["type"] == "hello":
            answer = {"type": "ready", "protocol": 1, "name": "posting", "version": "1", "capabilities": []}
        elif frame["type"] == "turn":
            answer = {"type": "complete", "runId": frame["runId"], "text": json.dumps(reply(frame))}
        if answer is not None:
            wire.sendall(json.dumps(answer).encode() + b"\n")


main()

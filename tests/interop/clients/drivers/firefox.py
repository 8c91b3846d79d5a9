"""An unmodified Firefox, driven over WebDriver BiDi, which it speaks itself. (Playwright asks it for what it lacks.)"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from typing import Any

from websockets.sync.client import connect

_LISTENING = re.compile(rb"WebDriver BiDi listening on (ws://\S+)")


class Firefox:
    def __init__(self, program: str = "/usr/bin/firefox-esr") -> None:
        profile = tempfile.mkdtemp(prefix="firefox-")
        self._process = subprocess.Popen(
            [program, "--headless", "--remote-debugging-port=0", "--profile", profile, "--no-remote"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := _LISTENING.search(line):
                break
        else:
            raise RuntimeError("Firefox ended before it listened")
        self._socket = connect(found[1].decode() + "/session", max_size=None)
        self._number = 0
        self._ask("session.new", capabilities={})
        tree = self._ask("browsingContext.getTree")
        self._page = tree["contexts"][0]["context"]

    def goto(self, url: str) -> None:
        self._ask("browsingContext.navigate", context=self._page, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, by way of JSON; a promise is waited for."""
        wrapped = f"(async () => JSON.stringify((await ({expression})) ?? null))()"
        got = self._ask("script.evaluate", expression=wrapped, target={"context": self._page}, awaitPromise=True)
        if got["type"] != "success":
            raise RuntimeError(got["exceptionDetails"]["text"])
        return json.loads(got["result"]["value"])

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def _ask(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(60))
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}: {answer['message']}")
                return answer["result"]

"""Clients of other protocols: what one asks comes to one end, and to the same one whenever and wherever it asks again.

Each is one user. One that is cut off, or told to come again, sends the same request to any host, with the id that its
protocol has for that. Now and then one does so although it has its reply, comes back for a stream that it dropped, or
goes away and wants no more.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs
import httpx
import psycopg
import trio

from tests.fakes.dialect_readers import READERS
from tests.system.lobu_process import LobuRun

Json = dict[str, Any]
End = tuple[str, str]  # how, and its text or code
DIALECTS = ("chat", "responses", "ui", "ag-ui", "whole chat", "whole responses")
NOT_NOW = (429, 502, 503, 504)
# The turn goes on without this request, which may be sent again.
GOES_ON = ("SERVER_RESTARTING", "STREAM_BROKEN")
# So a turn may end when workers, hosts and the machines of workers are killed, stand still or are cut off.
MAY_END = (
    "WORKER_CRASHED",
    "WORKER_STARTUP_FAILED",
    "WORKER_UNRESPONSIVE",
    "FIRST_OUTPUT_TIMEOUT",
    "NO_PROGRESS",
    "TURN_TIMEOUT",
    "HOST_LOST",
    "MY_CODE",
)
QUESTION = "once more?"
ASKING = "-asking"
# And so, if a question may wait: an attempt that begins anew asks again, whatever was shown.
MAY_END_ASKING = ("QUESTION_TIMEOUT", "REPLY_RESTARTED")
RETRY_SECONDS = 0.1
SILENCE_SECONDS = 60.0  # of a stream; it has signs of life every few seconds
WHOLE_SECONDS = 200.0  # for an answer in one piece: a turn's attempts


@attrs.define(eq=False)
class Asked:
    dialect: str
    name: str  # of its conversation; empty: it has none
    id: str
    content: str
    text: str | None  # that its reply has to be; None: it has none
    ends: set[End] = attrs.field(factory=set)  # that it was told
    unwanted: bool = False  # its client went away in a dialect in which that ends the turn

    @property
    def asking(self) -> bool:
        """In its conversation a question may wait, whose answer it then is; and it may end with one."""
        return self.name.endswith(ASKING)

    def __str__(self) -> str:
        return f"{self.id} ({self.dialect}, {self.content})"


class Asker:
    """`faults`: sentences about what was not as promised."""

    def __init__(self, hosts: Sequence[LobuRun], user: str, agent: str, seed: str) -> None:
        self.faults: list[str] = []
        self.asked: list[Asked] = []
        self.retries = 0
        self.doing = ""
        self._hosts = hosts
        self.user = user
        self._agent = agent
        self._random = random.Random(seed)

    async def go(self, over: Callable[[], bool]) -> None:
        """Until `over()` and the last request has its end; may be called again."""
        while not over():
            self.asked.append(asked := self._next())
            while not asked.ends:
                await self._once(asked)
                if not asked.ends:
                    self.retries += 1
                    await trio.sleep(RETRY_SECONDS)
            if self._random.random() < 0.2:
                await self._once(asked)
            if len(asked.ends) > 1 and not asked.asking:
                self.faults.append(f"{asked} was told several ends: {sorted(asked.ends)}")
            await trio.sleep(self._random.expovariate(3))

    def _next(self) -> Asked:
        one = self._random
        word, number, delay = f"w{one.getrandbits(32):x}", one.randint(1, 60), one.randint(0, 60)
        long = (f"stream {number} {delay}", "".join(f"word{place} " for place in range(number)))
        nap = f"{one.uniform(0, 2):.2f}"
        content, text = one.choice(
            (
                (f"say {word} äöü again", f"say {word} äöü again"),
                *(long, long, long),
                (f"sleep {nap}", f"slept {nap}"),
                ("crash mid", None),
                ("fail MY_CODE asked", None),
            )
        )
        dialect = one.choice(DIALECTS)
        number = len(self.asked)
        if dialect not in ("ui", "ag-ui") and one.random() < 0.25:
            content = one.choice((f"ask {QUESTION}", f"say {word} again"))
            return Asked(dialect, f"{self.user}{ASKING}", f"{self.user}-{number}", content, content)
        is_named = dialect in ("ui", "ag-ui") or one.random() < 0.5
        name = f"{self.user}-{one.choice('ab')}" if is_named else ""
        return Asked(dialect, name, f"{self.user}-{number}", content, text)

    async def _once(self, asked: Asked) -> None:
        """One request, to its end or to the end of the connection or of the client's patience."""
        run, one = self._random.choice(self._hosts), self._random
        self.doing = str(asked)
        patience = one.expovariate(1) if one.random() < 0.15 else math.inf
        whole = asked.dialect.startswith("whole")
        seconds = WHOLE_SECONDS if whole else SILENCE_SECONDS
        headers = {"Authorization": f"Bearer {run.admin_key}"}
        raw, status, was_cut = b"", 0, True
        with trio.CancelScope(deadline=trio.current_time() + patience) as scope:
            try:
                async with (
                    httpx.AsyncClient(base_url=run.url, headers=headers, timeout=seconds) as http,
                    self._request(http, asked) as answer,
                ):
                    status = answer.status_code
                    async for piece in answer.aiter_raw():
                        raw += piece
                was_cut = False
            except httpx.ReadTimeout:
                asked.unwanted = True
                self.faults.append(f"{asked}: nothing was heard for {seconds:g} s")
            except httpx.TransportError:
                pass  # its host is away, or died
        if scope.cancelled_caught:
            asked.unwanted = asked.unwanted or asked.dialect != "ui"
        if status == 204 and not was_cut:
            return  # no reply goes on: it is over, or its message was not taken
        if status == 200 and not whole:
            self._take_stream(asked, raw, was_cut=was_cut)
        elif status == 200 and not was_cut:
            self._ended(asked, "complete", _text_of(asked.dialect, json.loads(raw)))
        elif not was_cut:
            self._refused(asked, status, raw)

    def _request(self, http: httpx.AsyncClient, asked: Asked) -> AbstractAsyncContextManager[httpx.Response]:
        name, agent, dialect = asked.name, self._agent, asked.dialect
        message = {"id": asked.id, "role": "user", "content": asked.content}
        message["parts"] = [{"type": "text", "text": asked.content}]  # type: ignore[assignment]
        if dialect == "ui":
            path = f"/api/v1/ui/{agent}/chat"
            if self._random.random() < 0.2:
                return http.stream("GET", f"{path}/{name}/stream")
            return http.stream("POST", path, json={"id": name, "messages": [message]})
        if dialect == "ag-ui":
            body: Json = {"threadId": name, "runId": asked.id, "messages": [message]}
            return http.stream("POST", f"/api/v1/ag-ui/{agent}", json=body)
        headers = {"Idempotency-Key": asked.id} | ({"X-Lobu-Conversation": name} if name else {})
        body = {"model": agent, "stream": not dialect.startswith("whole")}
        if dialect.endswith("chat"):
            body["messages"] = [{"role": "user", "content": asked.content}]
            return http.stream("POST", "/v1/chat/completions", json=body, headers=headers)
        return http.stream("POST", "/v1/responses", json=body | {"input": asked.content}, headers=headers)

    # --- what it hears

    def _take_stream(self, asked: Asked, raw: bytes, *, was_cut: bool) -> None:
        if was_cut:  # a frame may be torn
            raw = raw[: raw.rfind(b"\n\n") + 2]
            if raw.count(b"\n\n") < 3:
                return
        try:
            outcome = READERS[asked.dialect](raw)
        except AssertionError as error:
            self.faults.append(
                f"{asked} was told what is out of form: {error!r}\n{raw.decode(errors='replace')[-2000:]}"
            )
            return
        if outcome.end is None:
            if not was_cut:
                self.faults.append(f"{asked}: its stream ended without an end\n{raw.decode()[-2000:]}")
        elif outcome.end == "error":
            self._failed(asked, str(outcome.code))
        else:
            self._ended(asked, outcome.end, outcome.text if outcome.end == "complete" else "")
        if asked.asking and QUESTION.startswith(outcome.text):
            return
        if asked.text is not None and not asked.text.startswith(outcome.text):
            self.faults.append(f"{asked} was told {outcome.text!r}")

    def _refused(self, asked: Asked, status: int, raw: bytes) -> None:
        try:
            error = json.loads(raw)["error"]
        except (ValueError, KeyError, TypeError):
            error = None
        code = error.get("code") if isinstance(error, dict) else None
        if code in GOES_ON or code in MAY_END or code in MAY_END_ASKING or code == "CANCELLED":
            self._failed(asked, str(code))
        elif status not in NOT_NOW and not (asked.asking and code in ("QUESTION_ANSWERED", "QUESTION_WITHDRAWN")):
            self.faults.append(f"{asked} was answered {status}: {raw.decode(errors='replace')[:1000]}")
            asked.ends.add(("refused", str(status)))

    def _failed(self, asked: Asked, code: str) -> None:
        if code in GOES_ON:
            return
        self._ended(asked, *(("cancelled", "") if code == "CANCELLED" else ("error", code)))

    def _ended(self, asked: Asked, how: str, what: str) -> None:
        asked.ends.add((how, what))
        texts = (asked.text, QUESTION) if asked.asking else (asked.text,)
        codes = MAY_END + MAY_END_ASKING if asked.asking else MAY_END
        if how == "cancelled" and not (asked.unwanted or asked.asking):
            self.faults.append(f"{asked} was cancelled, and nobody wanted that")
        if how == "error" and what not in codes:
            self.faults.append(f"{asked} failed with {what}")
        if how not in ("error", "cancelled") and (how != "complete" or what not in texts):
            self.faults.append(f"{asked} ended with {how} and {what!r}")


def _text_of(dialect: str, body: Json) -> str:
    """Of an answer in one piece."""
    if dialect == "whole chat":
        return str(body["choices"][0]["message"]["content"])
    texts = [part["text"] for item in body["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(texts)


def turns_made(url: str, askers: Sequence[Asker]) -> list[str]:
    """Whether the database has one turn for each request, or one answer, once all have their ends."""
    made = (
        "SELECT count(*) FROM turn WHERE conversation_id NOT LIKE %s AND"
        " (message_id LIKE 'once-%%' OR message_id LIKE 'ui-%%' OR message_id LIKE 'ag-ui-%%')"
    )
    both = (
        "SELECT t.conversation_id, t.content FROM turn t JOIN question q ON q.answer_id = t.message_id"
        " AND q.conversation_id = t.conversation_id"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        [(turns,)] = connection.execute(made, (f"%{ASKING}",)).fetchall()
        doubled = connection.execute(both).fetchall()
    asked = sum(not one.asking for asker in askers for one in asker.asked)
    found = [] if turns == asked else [f"{asked} requests in other protocols made {turns} turns"]
    return found + [f"{content!r} in {name} is an answer, and a turn" for name, content in doubled]

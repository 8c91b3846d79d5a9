"""One scenario of one Python client against a running server, as a program of its user would do it.

Called as `python clients.py CLIENT SCENARIO` with LOBU_URL, LOBU_KEY, LOBU_CHAT (a name of its own), LOBU_AGENT and
LOBU_TEXT in the environment. Prints a line of JSON when the first text is there, and one with how it ended. Runs in an
environment of its own, so it imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

URL, KEY, CHAT = os.environ["LOBU_URL"], os.environ["LOBU_KEY"], os.environ["LOBU_CHAT"]
AGENT, TEXT = os.environ["LOBU_AGENT"], os.environ["LOBU_TEXT"]
BEARER = {"Authorization": f"Bearer {KEY}"}
LOOK = {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}}
_begun: list[bool] = []


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def first() -> None:
    if not _begun:
        say({"step": "text"})
        _begun.append(True)


def end(how: str, text: str = "", error: object = "") -> None:
    say({"end": how, "text": text, "error": str(error)})
    os._exit(0)


# --- openai


def openai_client() -> Any:
    from openai import OpenAI

    return OpenAI(base_url=f"{URL}/v1", api_key=KEY, default_headers={"X-Lobu-Conversation": CHAT})


def openai_chat(scenario: str) -> None:
    from httpx2 import HTTPError
    from openai import APIError

    client, messages = openai_client(), [{"role": "user", "content": TEXT}]

    def ask() -> tuple[str, list[Any]]:
        more: dict[str, Any] = {"tools": [{"type": "function", "function": LOOK}]} if scenario == "tool" else {}
        said, calls, reason = "", [], None
        try:
            stream = client.chat.completions.create(model=AGENT, stream=True, messages=messages, **more)
            for chunk in stream:
                for choice in chunk.choices:
                    said += choice.delta.content or ""
                    calls += choice.delta.tool_calls or []
                    reason = choice.finish_reason or reason
                if said:
                    first()
                    if scenario == "cancel":
                        stream.close()
                        end("cancelled", said)
        except (APIError, HTTPError) as error:
            end("error", said, f"{getattr(error, 'code', '')} {error!r}")
        if reason is None:
            end("cut", said)
        return said, calls

    said, calls = ask()
    if scenario == "tool":
        [call] = [call.model_dump(exclude={"index"}) for call in calls]
        messages.append({"role": "assistant", "content": said, "tool_calls": [call]})  # type: ignore[dict-item]
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": "42"})
        said, _ = ask()
    if scenario == "question":
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "blue"}]
        said, _ = ask()
    end("complete", said)


def openai_responses(scenario: str) -> None:
    from httpx2 import HTTPError
    from openai import APIError

    client = openai_client()

    def ask(given: Any, previous: str | None = None) -> tuple[str, Any]:
        more: dict[str, Any] = {"tools": [{"type": "function"} | LOOK]} if scenario == "tool" else {}
        said, response = "", None
        if previous is not None:
            more["previous_response_id"] = previous
        try:
            stream = client.responses.create(model=AGENT, stream=True, input=given, **more)
            for event in stream:
                if event.type == "response.output_text.delta":
                    said += event.delta
                    first()
                    if scenario == "cancel":
                        stream.close()
                        end("cancelled", said)
                if event.type == "response.completed":
                    response = event.response
        except (APIError, HTTPError) as error:
            end("error", said, f"{getattr(error, 'code', '')} {error!r}")
        if response is None:
            end("cut", said)
        return said, response

    said, response = ask(TEXT)
    if scenario == "tool":
        [call] = [item for item in response.output if item.type == "function_call"]
        said, _ = ask([{"type": "function_call_output", "call_id": call.call_id, "output": "42"}], response.id)
    if scenario == "question":
        said, _ = ask("blue", response.id)
    end("complete", said)


# --- llm


def llm(scenario: str) -> None:
    """The command, as a person types it; its conversation is named by a header of the model's configuration."""
    folder = Path(tempfile.mkdtemp(prefix="llm-"))
    model = {
        "model_id": "lobu",
        "model_name": AGENT,
        "api_base": f"{URL}/v1",
        "api_key_name": "lobu",
        "headers": {"X-Lobu-Conversation": CHAT},
    }
    (folder / "extra-openai-models.yaml").write_text(json.dumps([model]))  # JSON is YAML
    (folder / "keys.json").write_text(json.dumps({"lobu": KEY}))
    environment = {**os.environ, "LLM_USER_PATH": str(folder)}
    program = str(Path(sys.executable).with_name("llm"))

    def ask(*arguments: str) -> tuple[int, str, str]:
        command = [program, "-m", "lobu", *arguments]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        said = b""
        while piece := process.stdout.read1(4096):
            said += piece
            first()
            if scenario == "cancel":
                process.terminate()
                process.wait()
                end("cancelled", said.decode())
        errors = process.stderr.read().decode()
        return process.wait(), said.decode().removesuffix("\n"), errors

    code, said, errors = ask(TEXT)
    if scenario == "question" and code == 0:
        code, said, errors = ask("-c", "blue")
    end("complete" if code == 0 else "error", said, errors.strip())


# --- httpx-sse


def httpx_sse(scenario: str) -> None:
    import httpx
    from httpx_sse import connect_sse

    client = httpx.Client(base_url=URL, headers=BEARER, timeout=httpx.Timeout(20))
    opened = client.post("/api/v1/agents", json={"agentId": AGENT, "thread": CHAT}).json()
    path = f"/api/v1/agents/{opened['agentId']}"
    message = client.post(f"{path}/messages", json={"content": TEXT}).json()["messageId"]
    said, last_id, acted = "", "", False
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            headers = {"Last-Event-ID": last_id} if last_id else {}
            with connect_sse(client, "GET", f"{path}/events?messageId={message}", headers=headers) as source:
                for event in source.iter_sse():
                    last_id, data = event.id or last_id, event.json()
                    if event.event == "output":
                        said += data["content"]
                        first()
                        if scenario == "cancel" and not acted:
                            acted = True
                            client.post(f"{path}/cancel", json={})
                        if scenario == "resume" and not acted:
                            acted = True
                            break
                    elif event.event == "restart":
                        said = ""
                    elif event.event == "question":
                        client.post(f"{path}/questions/{data['questionId']}/answer", json={"answer": "blue"})
                    elif event.event == "complete":
                        end("complete" if data["finalText"].startswith(said) else "wrong", data["finalText"])
                    elif event.event == "agent-error":
                        end("error", said, f"{data['errorCode']} {data['error']}")
                    elif event.event == "cancelled":
                        end("cancelled", said)
        except httpx.HTTPError:
            time.sleep(0.1)
    end("no end", said)


# --- browsers

PAGE = """
async ([key, agent, chat, text, scenario]) => {
  const post = async (path, body, headers = {}) => (await fetch(path, {
    method: "POST", body: JSON.stringify(body), headers: {"Content-Type": "application/json", ...headers},
  })).json();
  await post("/api/v1/session", {}, {Authorization: `Bearer ${key}`});
  const {agentId} = await post("/api/v1/agents", {agentId: agent, thread: chat});
  const path = `/api/v1/agents/${agentId}`;
  const {messageId} = await post(`${path}/messages`, {content: text});
  window.state = {text: "", end: null, error: ""};
  const state = window.state;
  let source, lastId = null, acted = false;
  const listen = () => {
    source = new EventSource(`${path}/events?messageId=${messageId}${lastId ? `&since=${lastId}` : ""}`);
    const on = (name, act) => source.addEventListener(name, (event) => {
      if (!event.data) return;
      lastId = event.lastEventId || lastId;
      act(JSON.parse(event.data));
    });
    const finish = (how, error = "") => { source.close(); state.error = error; state.end = how; };
    on("output", (data) => {
      state.text += data.content;
      if (scenario === "cancel" && !acted) { acted = true; post(`${path}/cancel`, {}); }
      if (scenario === "resume" && !acted) { acted = true; source.close(); listen(); }
    });
    on("restart", () => { state.text = ""; });
    on("question", (data) => post(`${path}/questions/${data.questionId}/answer`, {answer: "blue"}));
    on("complete", (data) => {
      const fits = data.finalText.startsWith(state.text);
      state.text = data.finalText;
      finish(fits ? "complete" : "wrong");
    });
    on("agent-error", (data) => finish("error", `${data.errorCode} ${data.error}`));
    on("cancelled", () => finish("cancelled"));
  };
  listen();
}
"""


class Chromium:
    """As much of a browser as is needed here, by Playwright."""

    def __init__(self) -> None:
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        self._page = self._browser.new_page()

    def goto(self, url: str) -> None:
        self._page.goto(url)

    def evaluate(self, expression: str) -> Any:
        return self._page.evaluate(expression)

    def close(self) -> None:
        self._browser.close()
        self._playwright.stop()


def browser(make: Callable[[], Any]) -> Callable[[str], None]:
    def drive(scenario: str) -> None:
        page = make()
        page.goto(f"{URL}/metrics")  # any page of this origin
        page.evaluate(f"({PAGE})({json.dumps([KEY, AGENT, CHAT, TEXT, scenario])})")
        deadline = time.monotonic() + 60
        state: dict[str, Any] = {}
        while time.monotonic() < deadline and not state.get("end"):
            state = page.evaluate("window.state")
            if state["text"]:
                first()
            time.sleep(0.05)
        page.close()
        end(state["end"] or "no end", state["text"], state["error"])

    return drive


def firefox() -> Any:
    from firefox import Firefox

    return Firefox()


CLIENTS: dict[str, Callable[[str], None]] = {
    "openai-pypi-chat": openai_chat,
    "openai-pypi-responses": openai_responses,
    "llm": llm,
    "httpx-sse": httpx_sse,
    "chromium": browser(Chromium),
    "firefox": browser(firefox),
}

if __name__ == "__main__":
    CLIENTS[sys.argv[1]](sys.argv[2])

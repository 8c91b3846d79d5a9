"""A real `lobu run`, and real Chromium and Firefox in front of it. Tests here are synchronous, as the driver is.

Where a browser cannot be had its tests are skipped and say how to get it. What a page looked like at the end of a test
is kept in results/browser.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import httpx
import pytest
import trio
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

from tests.fakes.proxy import Proxy
from tests.system.lobu_process import ADMIN_KEY, LobuRun, free_port

RESULTS = Path(__file__).parents[2] / "results" / "browser"
CONFIG = """
[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
zygote = true
warm = 1
[workers.asks]
command = ["python", "-m", "asking"]
[[agents]]
id = "echo"
worker = "echo"
default = true
[[agents]]
id = "asks"
worker = "asks"
"""
TOOL = "<img src=x onerror='window.pwned = 1'>"  # a worker calls it as it likes
ASKING = f"""
import asyncio
import os

from lobu_actors.worker import Fail, Turn, serve


async def reply(turn: Turn):
    if turn.content == "fail":
        turn.status("looks", phase="tool", tool={TOOL!r})
        raise Fail("TOOL_BROKE", "It does not work.")
    if turn.content.startswith("held "):  # in its middle, until there is a file of that name
        yield "The first half"
        while not os.path.exists(turn.content.removeprefix("held ")):
            await asyncio.sleep(0.01)
        yield " and the second."
        return
    yield "Before. "
    answer = await turn.ask("Which colour shall it be?", options=["red", "green", "blue"])
    yield f"You chose {{answer}}."


serve(reply, name="asks")
"""
PROGRAMS = {"chromium": "chromium", "firefox": "firefox-esr"}
ANOTHER_NAME = "agents.example.org"  # leads here, in Chromium
# As root Chromium has no sandbox of its own; the rest keeps it from calling home.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP {ANOTHER_NAME} 127.0.0.1",
]
# Firefox as Debian has it is spoken to over WebDriver BiDi, which has no such overrides yet.
AS_IT_IS: dict[str, Any] = {
    "color_scheme": "null", "reduced_motion": "null", "forced_colors": "null", "contrast": "null",
}  # fmt: skip
expect.set_options(timeout=15_000)


@attrs.frozen
class House:
    """The server, and shorthands for what tests do around the page."""

    run: LobuRun
    client: httpx.Client

    @property
    def url(self) -> str:
        return self.run.url

    def restart(self) -> None:
        """Killed, and started again on the same port: its workers are adopted."""
        trio.run(self.run.kill_main)
        trio.run(self.run.start)

    def kill_workers(self) -> None:
        for pid in self.run.worker_pids():
            trio.run(partial(trio.run_process, ["kill", "-9", str(pid)], check=False))

    def post(self, path: str, **body: Any) -> Any:
        answer = self.client.post(self.url + path, json=body)
        answer.raise_for_status()
        return answer.json()

    def session(self) -> str:
        """A browser's cookie, as signing in gives it."""
        value = self.client.post(f"{self.url}/api/v1/session").cookies["lobu_session"]
        self.client.cookies.clear()
        return value

    def user_key(self, user: str) -> str:
        """An API key of somebody who is no administrator."""
        command = [sys.executable, "-m", "supervisor.cli.main", "token", "create", "--user", user]
        made = subprocess.run(
            command, cwd=self.run.folder, env=self.run.environment, capture_output=True, text=True, check=True
        )
        found = re.search(r"lobu_\S+", made.stdout)
        assert found is not None, made.stdout
        return found[0]

    def open(self, agent: str = "echo") -> str:
        key: str = self.post("/api/v1/agents", agentId=agent, forceNew=True)["agentId"]
        return key

    def say(self, key: str, *contents: str) -> None:
        """Each is answered when this returns."""
        for content in contents:
            receipt = self.post(f"/api/v1/agents/{key}/messages", content=content)
            with self.client.stream("GET", receipt["eventsUrl"]) as stream:
                stream.read()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a page has to stand is looked at in Chromium with every change, in Firefox by `make slow`."""
    for item in items:
        if item.path.name == "test_hard.py" and "[firefox" in item.name:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    folder = Path(tempfile.mkdtemp(prefix="lobu-browser-"))
    folder.chmod(0o755)  # workers with a uid of their own read it
    (folder / "asking.py").write_text(ASKING)
    environment = {"PYTHONPATH": str(folder), "WORKER_ENV_PYTHONPATH": str(folder)}
    run = LobuRun(folder, config=CONFIG, arguments=("--port", str(free_port())), environment=environment)
    try:
        trio.run(run.start)
        with httpx.Client(headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=20) as client:
            yield House(run, client)
    finally:
        trio.run(run.kill_all)
        shutil.rmtree(folder, ignore_errors=True)


class Line:
    """What is between a browser and the server, in a thread of its own: it can be slow, or cut for a while."""

    def __init__(self, target: int) -> None:
        self._proxy = Proxy(target)
        self._up = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run,))
        self._thread.start()
        assert self._up.wait(20)

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as self._scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._proxy.run)
                self._up.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._proxy.port}"

    def slow(self, *, latency_seconds: float, bytes_per_second: float) -> None:
        self._proxy.latency_seconds, self._proxy.bytes_per_second = latency_seconds, bytes_per_second

    def cut(self) -> None:
        self._token.run_sync_soon(self._proxy.cut)

    def heal(self) -> None:
        self._token.run_sync_soon(self._proxy.heal)

    def close(self) -> None:
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def line(house: House) -> Iterator[Line]:
    made = Line(urlsplit(house.url).port or 0)
    yield made
    made.close()


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """Of one file: while it lives, this thread seems to run asyncio, which other tests must not see."""
    with sync_playwright() as started:
        yield started


def launched(playwright: Playwright, name: str) -> Browser:
    program = shutil.which(PROGRAMS[name])
    if program is None:
        pytest.skip(f"needs {PROGRAMS[name]}: apt-get install {PROGRAMS[name]}")
    if name == "chromium":
        return playwright.chromium.launch(executable_path=program, args=CHROMIUM_ARGUMENTS)
    return playwright.firefox.launch(executable_path=program, channel="moz-firefox")


@pytest.fixture(scope="module")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    browser = launched(playwright, "chromium")
    yield browser
    browser.close()


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def browser(request: pytest.FixtureRequest, playwright: Playwright) -> Iterator[Browser]:
    if request.param == "chromium":
        yield request.getfixturevalue("chromium")
        return
    browser = launched(playwright, request.param)
    yield browser
    browser.close()


@pytest.fixture
def context(browser: Browser, house: House) -> Iterator[BrowserContext]:
    """A person's browser, with nothing in it yet."""
    yield from fresh(browser, house)


@pytest.fixture
def chromium_context(chromium: Browser, house: House) -> Iterator[BrowserContext]:
    yield from fresh(chromium, house)


def fresh(browser: Browser, house: House) -> Iterator[BrowserContext]:
    made = {} if browser.browser_type.name == "chromium" else AS_IT_IS
    context = browser.new_context(base_url=house.url, viewport={"width": 1200, "height": 800}, **made)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, house: House, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The chat page, signed in. A script error on it fails the test."""
    yield from signed_in(context, house, request.node.name)


def signed_in(context: BrowserContext, house: House, name: str) -> Iterator[Page]:
    context.add_cookies([{"name": "lobu_session", "value": house.session(), "url": house.url}])
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto("/")
    expect(page.locator("#app")).to_be_visible()
    yield page
    keep(page, name)
    assert errors == []


def sign_in(page: Page, path: str) -> None:
    page.goto(path)
    page.get_by_label("API key").fill(ADMIN_KEY)
    page.keyboard.press("Enter")
    expect(page.locator("#sign-in")).to_be_hidden()
    expect(page.locator("#app")).to_be_visible()


def keep(page: Page, name: str) -> None:
    """Of Chromium only: for a picture of Firefox the driver puts a style into the page, which our policy refuses."""
    if page.context.browser is None or page.context.browser.browser_type.name != "chromium":
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=RESULTS / f"{re.sub('[^a-z0-9_]+', '-', name)}.png")


@attrs.frozen
class Chat:
    """What a person does on the chat page, by the names that a screen reader would say."""

    page: Page

    def begin(self) -> None:
        self.page.get_by_role("button", name="New conversation").click()
        expect(self.page.locator("#welcome")).to_be_visible()

    def open(self, key: str) -> None:
        """By its link. One that is not in the page's list yet comes into it at once, not with its next look."""
        self.page.goto(f"/#c={key}")
        expect(self.page.locator(f'a[aria-current="page"][data-key="{key}"]')).to_have_count(1, timeout=7_000)

    def send(self, text: str) -> None:
        field = self.page.get_by_label("Message", exact=True)
        field.fill("" if "\n" in text else text)
        if "\n" in text:  # as when it is pasted; Firefox's driver would press Enter for each line
            field.evaluate("(field, text) => { field.value = text; field.dispatchEvent(new Event('input')); }", text)
        self.page.keyboard.press("Enter")

    def turn(self, number: int = -1) -> Any:
        return self.page.locator(".turn").nth(number)

    def reply(self, number: int = -1) -> Any:
        return self.turn(number).locator(".reply")

    def ends(self, text: str, number: int = -1) -> None:
        expect(self.turn(number)).to_have_class(re.compile(r"\bdone\b"))
        expect(self.reply(number)).to_have_text(text)


@pytest.fixture
def chat(page: Page) -> Chat:
    return Chat(page)

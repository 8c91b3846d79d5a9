"""The operations page before a real server: what is shown is what there is, and looking ends when nobody looks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import psutil
import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.browser.conftest import House, keep, sign_in

ENTRIES = [
    {"at": 1_700_000_000_000, "name": "accepted", "sinceStartMs": 0},
    {"at": 1_700_000_000_004, "name": "started", "detail": "attempt 1", "sinceStartMs": 3.9},
    {"at": 1_700_000_000_104, "name": "committed", "detail": "failed <b>WORKER_CRASHED</b>", "sinceStartMs": 104.2},
]


@pytest.fixture
def ops(chromium_context: BrowserContext, request: pytest.FixtureRequest) -> Iterator[Page]:
    page = chromium_context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    sign_in(page, "/ops")
    expect(page.locator("#state.live")).to_be_visible()
    yield page
    keep(page, request.node.name)
    assert errors == []


def tile(page: Page, name: str) -> object:
    return page.locator(".tile").filter(has_text=name).locator(".value")


def test_a_running_turn_is_there_with_its_clocks_and_its_worker(ops: Page, house: House) -> None:
    key = house.open()
    house.post(f"/api/v1/agents/{key}/messages", content="stream 10000 30")
    turns = ops.locator("#turns")
    expect(turns).to_contain_text(key[-8:])
    for code in ("TURN_TIMEOUT", "WORKER_UNRESPONSIVE", "NO_PROGRESS"):
        expect(turns).to_contain_text(code)
    expect(turns).to_contain_text("characters")
    expect(ops.locator("#actors")).to_contain_text(key[-8:])
    workers = ops.locator("#workers tr").filter(has_text=key[-8:])
    expect(workers).to_contain_text(re.compile("|".join(map(str, house.run.worker_pids()))))
    expect(workers).to_contain_text(re.compile(r"\d MB"))
    expect(tile(ops, "running turns")).to_have_text("1")
    house.post(f"/api/v1/agents/{key}/cancel")
    expect(turns).to_have_text("Nothing runs.")


def test_a_clock_runs_down_between_two_looks(ops: Page, house: House) -> None:
    key = house.open()
    house.post(f"/api/v1/agents/{key}/messages", content="ask Well?")
    row = ops.locator("#turns tr").filter(has_text=key[-8:])
    expect(row).to_contain_text("waits for an answer")
    expect(row).to_contain_text("QUESTION_TIMEOUT")
    age = row.locator("td").nth(3)
    first = age.inner_text()
    expect(age).not_to_have_text(first)
    house.post(f"/api/v1/agents/{key}/cancel")


def test_a_crash_is_a_failure_with_its_code_and_one_click_from_its_timeline(ops: Page, house: House) -> None:
    """What the page makes of a timeline; the timeline itself has tests of its own."""
    ops.route("**/timeline", lambda route: _answer(route))
    key = house.open()
    house.say(key, "crash", "fail MY_CODE because", "hello")
    failures = ops.locator("#failures")
    expect(failures.get_by_role("button", name=re.compile("WORKER_CRASHED"))).to_be_visible()
    failures.get_by_role("button", name=re.compile("MY_CODE")).click()
    expect(failures.locator("tbody tr")).to_have_count(1)
    failures.get_by_role("button", name=re.compile("Timeline of message")).click()
    dialog = ops.get_by_role("dialog", name="Timeline")
    expect(dialog.get_by_role("listitem")).to_have_count(len(ENTRIES))
    expect(dialog).to_contain_text("+3.9 ms")
    expect(dialog).to_contain_text("failed <b>WORKER_CRASHED</b>")
    keep(ops, "timeline")
    ops.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(ops.locator("#terminal .plot")).to_be_visible()
    expect(ops.locator("#crash .plot")).to_have_attribute(
        "aria-label", re.compile(r"Crash to terminal event.*1 of them")
    )
    expect(ops.locator("#terminal .legend")).to_contain_text(re.compile(r"p50 [\d.]+ m?s"))


def _answer(route: Route) -> None:
    body = {"success": True, "turnId": "t", "messageId": "m", "entries": ENTRIES}
    route.fulfill(status=200, content_type="application/json", body=json.dumps(body))


def test_the_tree_shows_what_was_started_again(ops: Page, house: House) -> None:
    tree = ops.locator("#tree")
    for part in ("lobu", "store", "spawner", "membership", "conversations", "edge"):
        expect(tree.get_by_text(part, exact=True)).to_be_visible()
    expect(tree.locator(".light:not(.running)")).to_have_count(0)
    spawner = house.run.spawner_pid()
    assert spawner is not None
    psutil.Process(spawner).kill()
    restarted = tree.locator("li").filter(has_text="spawner").last
    expect(restarted).to_contain_text(re.compile(r"\d+ restart"))
    expect(ops.locator("#hosts tbody tr")).to_have_count(1)
    expect(ops.locator("#hosts")).to_contain_text("active")


def test_a_page_that_nobody_sees_asks_for_nothing(ops: Page, house: House) -> None:
    def streams() -> float:
        asked = house.client.get(f"{house.url}/metrics").text
        found = re.search(r'^lobu_edge_requests_total\{route="/api/v1/ops/events",status="200"\} (\S+)', asked, re.M)
        return float(found[1]) if found else 0.0

    before = streams()
    hide = "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    ops.evaluate(hide, True)
    expect(ops.locator("#state")).to_have_text("Paused")
    ops.evaluate(hide, False)
    expect(ops.locator("#state")).to_have_text("Live")
    assert streams() == before + 1


def test_it_survives_its_server(ops: Page, house: House) -> None:
    house.restart()
    expect(ops.locator("#state")).to_have_text("Live", timeout=20_000)


def test_it_is_for_administrators(chromium_context: BrowserContext, house: House) -> None:
    key = house.user_key("ann")
    page = chromium_context.new_page()
    page.goto("/ops")
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")
    expect(page.get_by_text("This page is for administrators.").first).to_be_visible()
    expect(page.locator("#tree")).to_be_empty()

"""The operations page before a real server: what is shown is what there is, and looking ends when nobody looks."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psutil
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import TOOL, House, keep, sign_in

COUNTED_MS = 60_000  # what is owed is counted the less often, the longer that takes


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
    expect(tile(ops, "running turns")).to_have_text("1", timeout=COUNTED_MS)
    house.post(f"/api/v1/agents/{key}/cancel")
    expect(turns).to_have_text("Nothing runs.")


def test_a_clock_runs_down_between_two_looks(ops: Page, house: House) -> None:
    key = house.open()
    house.post(f"/api/v1/agents/{key}/messages", content="ask Well?")
    row = ops.locator("#turns tr").filter(has_text=key[-8:])
    expect(row).to_contain_text("waits for an answer")
    expect(row).to_contain_text("QUESTION_TIMEOUT")
    age = row.locator("td").nth(4)
    first = age.inner_text()
    expect(age).not_to_have_text(first)
    house.post(f"/api/v1/agents/{key}/cancel")


def test_a_failure_is_one_click_from_its_timeline(ops: Page, house: House) -> None:
    key = house.open("asks")
    receipt = house.post(f"/api/v1/agents/{key}/messages", content="fail")
    failures = ops.locator("#failures")
    failures.get_by_role("button", name=re.compile("TOOL_BROKE")).click()
    expect(failures.locator("tbody tr")).to_have_count(1)
    failures.get_by_role("button", name=re.compile("Timeline of message")).click()
    dialog = ops.get_by_role("dialog", name="Timeline")
    entries = house.client.get(f"{house.url}/api/v1/agents/{key}/turns/{receipt['turnId']}/timeline").json()["entries"]
    assert ("tool", TOOL) in [(entry["name"], entry.get("detail")) for entry in entries]
    steps = dialog.get_by_role("listitem")
    expect(steps).to_have_count(len(entries))
    for number, entry in enumerate(entries):
        expect(steps.nth(number)).to_contain_text(entry["name"])
        expect(steps.nth(number)).to_contain_text(entry.get("detail") or "")
    expect(steps.first).to_contain_text("+0 s")
    expect(steps.last).to_contain_text(re.compile(r"\+[\d.]+ m?s.*failed TOOL_BROKE"))
    expect(dialog).to_contain_text(receipt["turnId"])
    assert ops.evaluate("() => window.pwned") is None
    keep(ops, "timeline")
    ops.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_a_turn_in_flight_has_a_timeline_too_and_an_unknown_one_a_sentence(ops: Page, house: House) -> None:
    key = house.open("asks")
    house.post(f"/api/v1/agents/{key}/messages", content="paint it")
    row = ops.locator("#turns tr").filter(has_text=key[-8:])
    row.get_by_role("button", name=re.compile("Timeline of message")).click()
    dialog = ops.get_by_role("dialog", name="Timeline")
    expect(dialog.get_by_role("listitem").first).to_contain_text("accepted")
    expect(dialog.get_by_role("listitem").filter(has_text="question")).to_have_count(1)
    expect(dialog.get_by_role("listitem").filter(has_text="committed")).to_have_count(0)
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()
    ops.evaluate(f"async () => (await import('/web/timeline.js')).show('{key}', 'no-such-turn', 'm')")
    expect(dialog).to_contain_text("This conversation has no such turn or message.")
    house.post(f"/api/v1/agents/{key}/cancel")


def test_a_slow_finger_clicks_too(ops: Page, house: House) -> None:
    """The tables are made anew four times a second, but not under a button that is held down."""
    key = house.open()
    house.post(f"/api/v1/agents/{key}/messages", content="ask Well?")
    row = ops.locator("#turns tr").filter(has_text=key[-8:])
    button, lease = row.get_by_role("button", name="Timeline of message"), ops.locator("#hosts tbody tr")
    button.hover()
    ops.mouse.down()
    before = lease.inner_text()
    expect(lease).not_to_have_text(before, use_inner_text=True)
    ops.mouse.up()
    expect(ops.get_by_role("dialog", name="Timeline")).to_be_visible()
    ops.keyboard.press("Escape")
    house.post(f"/api/v1/agents/{key}/cancel")


def test_a_crash_has_its_latency_beside_those_of_all_turns(ops: Page, house: House) -> None:
    key = house.open()
    house.say(key, "crash", "hello")
    expect(ops.locator("#failures").get_by_role("button", name=re.compile("WORKER_CRASHED"))).to_be_visible()
    expect(ops.locator("#terminal .plot")).to_be_visible()
    expect(ops.locator("#crash .plot")).to_have_attribute(
        "aria-label", re.compile(r"Crash to terminal event.*1 of them")
    )
    expect(ops.locator("#terminal .legend")).to_contain_text(re.compile(r"p50 [\d.]+ m?s"))


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


def test_it_survives_its_server_and_says_what_is_old(ops: Page, house: House) -> None:
    house.run.process.kill()
    house.run.process.wait(20)
    expect(ops.locator("#state")).to_have_text("Connection lost. Reconnecting…")
    expect(ops.locator("main.stale")).to_be_visible()
    house.restart()
    expect(ops.locator("#state")).to_have_text("Live", timeout=20_000)
    expect(ops.locator("main.stale")).to_have_count(0)


def test_a_phone_sees_each_turn_and_its_timeline_without_moving_the_page(ops: Page, house: House) -> None:
    ops.set_viewport_size({"width": 360, "height": 740})
    key = house.open()
    house.post(f"/api/v1/agents/{key}/messages", content="ask Well?")
    row = ops.locator("#turns tr").filter(has_text=key[-8:])
    expect(row.get_by_role("button", name="Timeline of message")).to_be_visible()
    edge = """key => [...document.querySelectorAll('#turns tr')].find(row => row.textContent.includes(key))
      .querySelector('button').getBoundingClientRect().right"""
    assert ops.evaluate(edge, key[-8:]) <= 360
    assert ops.evaluate("() => document.documentElement.scrollWidth") <= 360
    house.post(f"/api/v1/agents/{key}/cancel")


def test_it_is_for_administrators(chromium_context: BrowserContext, house: House) -> None:
    key = house.user_key("ann")
    page = chromium_context.new_page()
    page.goto("/ops")
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")
    expect(page.get_by_text("This page is for administrators.").first).to_be_visible()
    expect(page.locator("#tree")).to_be_empty()

"""One scenario in Open WebUI's page, in a real Chromium, as a person does it; called and answering as `clients.py` is.

LOBU_WEBUI is the page's address. What counts is what the person sees: the text of the reply, an error in its place, and
whether the page still waits.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from playwright.sync_api import Page, sync_playwright

AGENT, TEXT, URL = os.environ["LOBU_AGENT"], os.environ["LOBU_TEXT"], os.environ["LOBU_WEBUI"]
SECONDS = 60.0
INPUT, SEND, STOP, REPLY = "#chat-input", "#send-message-button", "button[aria-label='Stop']", ".chat-assistant"
WELCOME = "Okay, Let's Go!"  # a button in the way, once
# What is seen of the newest reply: its text, and the box below it, which is there when something went wrong.
SEEN = """() => {
  const box = [...document.querySelectorAll(".chat-assistant #response-content-container")].at(-1);
  const text = box?.querySelector(".markdown-prose");
  const notes = [...(box?.querySelectorAll(".break-words") ?? [])].filter((found) => !text?.contains(found));
  return [text?.innerText ?? "", notes.map((found) => found.innerText).join(" ")];
}"""


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def main(scenario: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        page.add_locator_handler(page.get_by_text(WELCOME), lambda button: button.click())
        page.goto(f"{URL}/?models={AGENT}")
        page.wait_for_selector(INPUT, timeout=SECONDS * 1000)
        outcome = ask(page, TEXT, scenario, replies=1)
        if scenario == "question":
            outcome = ask(page, "blue", scenario, replies=2)
        outcome["chat"] = page.url.rpartition("/c/")[2].partition("?")[0]
        browser.close()
    say(outcome)


def ask(page: Page, text: str, scenario: str, replies: int) -> dict[str, Any]:
    """How it ended, as the page shows it; `replies`: how many there are with this one."""
    page.fill(INPUT, text)
    page.click(SEND)
    deadline, begun = time.monotonic() + SECONDS, False
    while time.monotonic() < deadline:
        waits, count = page.locator(STOP).count() > 0, page.locator(REPLY).count()
        said, error = page.evaluate(SEEN) if count == replies else ("", "")
        if said and not begun:
            begun = True
            say({"step": "text"})
            if scenario == "cancel":
                page.click(STOP)
                continue
        if not waits and (said or error):
            end = "error" if error else "cancelled" if scenario == "cancel" else "complete"
            return {"end": end, "text": said, "error": error}
        time.sleep(0.05)
    return {"end": "hung", "text": said, "error": error}


if __name__ == "__main__":
    main(sys.argv[2])

"""The chat page as people use it, in both browsers: what is sent is answered, whatever goes wrong on the way."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import ADMIN_KEY, Chat, House, keep, sign_in

STREAM = "stream 50 30"
STREAMED = " ".join(f"word{n}" for n in range(50))


def test_signing_in_needs_a_good_key(context, house: House) -> None:
    page = context.new_page()
    page.goto("/")
    box = page.get_by_role("dialog", name="Sign in").locator("form").bounding_box()
    assert box is not None
    assert abs(box["x"] + box["width"] / 2 - 600) < 2, "in the middle"
    page.get_by_label("API key").fill("lobu_no-such-key")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").filter(has_text="not valid")).to_be_visible()
    expect(page.locator("#app")).to_be_hidden()
    page.get_by_label("API key").fill(ADMIN_KEY)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#app")).to_be_visible()
    assert ADMIN_KEY not in str(
        page.evaluate("() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    )
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()


def test_a_message_is_answered_and_the_conversation_is_listed(chat: Chat) -> None:
    chat.begin()
    chat.send("Good **morning**")
    chat.ends("Good morning")
    expect(chat.reply().locator("strong")).to_have_text("morning")
    current = chat.page.locator('#conversations a[aria-current="page"]')
    expect(current).to_contain_text("Good morning")
    chat.page.reload()
    chat.ends("Good morning")


def test_a_reply_streams_and_is_whole(chat: Chat, house: House, browser: Browser) -> None:
    go_on = house.run.folder / f"go-on-{browser.browser_type.name}"
    chat.page.get_by_label("Agent").select_option("asks")
    expect(chat.page.locator("#welcome-agent")).to_contain_text("asks")
    chat.send(f"held {go_on}")
    expect(chat.reply()).to_have_text("The first half")
    expect(chat.turn()).to_have_class(re.compile("running"))
    expect(chat.turn()).to_have_attribute("aria-busy", "true")
    expect(chat.page.locator('#conversations a[aria-current="page"]')).to_contain_text("held ")
    expect(chat.turn()).to_have_class(re.compile("running"))
    go_on.touch()
    chat.ends("The first half and the second.")
    expect(chat.page.locator("#announce")).to_contain_text("Reply: The first half")


def test_messages_queue_while_one_is_answered_and_can_be_taken_back(chat: Chat) -> None:
    chat.begin()
    chat.send("stream 1000 30")
    expect(chat.reply(0)).to_contain_text("word1")
    chat.send("second")
    chat.send("third")
    expect(chat.page.locator(".turn.waiting")).to_have_count(2)
    chat.turn(1).get_by_role("button", name="Cancel this message").click()
    expect(chat.turn(1)).to_have_class(re.compile("stopped"))
    expect(chat.turn(2)).to_have_class(re.compile("waiting"))
    chat.page.get_by_role("button", name="Stop", exact=True).click()
    expect(chat.turn(0)).to_have_class(re.compile("stopped"))
    chat.ends("third", 2)


def test_stop_stops_and_keeps_what_was_said(chat: Chat) -> None:
    chat.begin()
    chat.send("stream 1000 30")
    expect(chat.reply()).to_contain_text("word2")
    chat.page.get_by_role("button", name="Stop", exact=True).click()
    expect(chat.turn()).to_have_class(re.compile("stopped"))
    expect(chat.reply()).to_contain_text("word2")
    expect(chat.page.get_by_role("button", name="Stop", exact=True)).to_be_hidden()
    chat.send("and on")
    chat.ends("and on")


def test_a_question_is_answered_by_a_button(chat: Chat) -> None:
    chat.page.get_by_label("Agent").select_option("asks")
    expect(chat.page.locator("#welcome-agent")).to_contain_text("asks")
    chat.send("paint it")
    asked = chat.page.get_by_role("group", name="A question")
    expect(asked).to_contain_text("Which colour shall it be?")
    expect(asked.get_by_role("button")).to_have_text(["red", "green", "blue"])
    asked.get_by_role("button", name="green").click()
    expect(asked).to_contain_text("Answered: green")
    chat.ends("Before. You chose green.")
    chat.page.reload()
    expect(asked).to_contain_text("Answered: green")


def test_a_question_without_options_is_answered_in_words(chat: Chat) -> None:
    chat.begin()
    chat.send("ask What is your name?")
    chat.page.get_by_label("Your answer").fill("Ann")
    chat.page.keyboard.press("Enter")
    chat.ends("Ann")


def test_new_begins_anew(chat: Chat, house: House) -> None:
    chat.begin()
    chat.send("hello")
    chat.ends("hello")
    chat.send("/new")
    expect(chat.page.locator(".mark")).to_have_text("New session")
    chat.send("history")
    chat.ends("0")


def test_a_worker_that_is_killed_mid_reply_is_told_with_its_code(chat: Chat, house: House) -> None:
    chat.begin()
    chat.send("stream 1000 30")
    expect(chat.reply()).to_contain_text("word2")
    house.kill_workers()
    failed = chat.page.get_by_role("group", name="This failed")
    expect(failed).to_contain_text("WORKER_CRASHED")
    expect(failed).to_contain_text("The worker ended before it finished its reply")
    expect(chat.reply()).to_contain_text("word2")
    chat.send("still here?")
    chat.ends("still here?")
    chat.turn(0).get_by_role("button", name="Send again").click()
    expect(chat.page.locator(".turn")).to_have_count(3)
    chat.page.get_by_role("button", name="Stop", exact=True).click()


def test_a_server_that_is_killed_mid_reply_costs_no_word(chat: Chat, house: House) -> None:
    chat.begin()
    chat.send("stream 120 40")
    expect(chat.reply()).to_contain_text("word5")
    house.restart()
    expect(chat.page.locator("#connection")).to_be_hidden(timeout=20_000)
    chat.ends(" ".join(f"word{n}" for n in range(120)))


def test_a_message_that_is_sent_while_the_server_is_away_arrives_once(chat: Chat, house: House) -> None:
    chat.begin()
    chat.send("first")
    chat.ends("first")
    house.run.process.kill()
    house.run.process.wait(20)
    chat.send("second")
    expect(chat.turn()).to_have_class(re.compile("sending"))
    expect(chat.page.get_by_text("Connection lost. Reconnecting…")).to_be_visible()
    keep(chat.page, "away")
    house.restart()
    chat.ends("second")
    expect(chat.page.locator(".turn")).to_have_count(2)
    expect(chat.page.get_by_text("Connection lost")).to_have_count(0)


def test_two_tabs_show_the_same(chat: Chat, context) -> None:
    chat.begin()
    chat.send("one")
    chat.ends("one")
    other = Chat(context.new_page())
    other.page.goto(chat.page.url)
    other.ends("one")
    other.send(STREAM)
    expect(chat.reply(1)).to_contain_text("word1")
    expect(chat.turn(1).locator(".said")).to_have_text(STREAM)
    chat.ends(STREAMED, 1)
    other.ends(STREAMED, 1)


def test_a_session_that_is_over_asks_again_and_loses_nothing(chat: Chat, context) -> None:
    chat.begin()
    chat.send("before")
    chat.ends("before")
    context.clear_cookies()  # as a browser does when a cookie's time is over
    chat.send("while nobody was signed in")
    expect(chat.page.get_by_text("Your session is over.")).to_be_visible()
    keep(chat.page, "session-over")
    chat.page.get_by_label("API key").fill(ADMIN_KEY)
    chat.page.keyboard.press("Enter")
    chat.ends("while nobody was signed in")
    expect(chat.page.locator(".turn")).to_have_count(2)


def test_everything_by_keyboard(context, house: House) -> None:
    page = context.new_page()
    page.bring_to_front()
    sign_in(page, "/")
    expect(page.locator("#message")).to_be_focused()
    page.keyboard.type("stream 500 30")
    page.keyboard.press("Enter")
    expect(page.locator(".turn.running .reply")).to_contain_text("word1")
    page.keyboard.press("Escape")
    expect(page.locator(".turn").last).to_have_class(re.compile("stopped"))
    for _ in range(100):  # back over the list to the button above it; forwards Firefox leaves the page
        page.keyboard.press("Shift+Tab")
        if page.evaluate("() => document.activeElement.id") == "new":
            break
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_be_focused()
    expect(page.locator("#welcome")).to_be_visible()
    agent = page.get_by_label("Agent")
    agent.focus()
    chosen = agent.input_value()
    for key in ("ArrowUp", "ArrowDown"):  # whichever way there is another one
        page.keyboard.press(key)
        if agent.input_value() != chosen:
            break
    expect(page.locator("#welcome-agent")).to_contain_text("asks")
    expect(agent).to_be_focused()


@pytest.mark.parametrize("width", [360])
def test_a_phone_has_a_drawer(chat: Chat, width: int) -> None:
    chat.page.set_viewport_size({"width": width, "height": 740})
    chat.page.get_by_role("button", name="Conversations", exact=True).click()
    expect(chat.page.get_by_role("button", name="New conversation")).to_be_in_viewport()
    keep(chat.page, "drawer")
    chat.page.get_by_role("button", name="New conversation").click()
    expect(chat.page.locator("#sidebar")).not_to_be_in_viewport()
    chat.send("from a phone, with a long-word-that-does-not-end-" + "x" * 80)
    chat.ends("from a phone, with a long-word-that-does-not-end-" + "x" * 80)
    wide = chat.page.evaluate("() => document.documentElement.scrollWidth")
    assert wide <= width

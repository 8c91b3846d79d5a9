"""What a page has to stand: markup from a model, long histories, slow lines; what a reader of it needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import ADMIN_KEY, ANOTHER_NAME, Chat, House, Line, keep, sign_in

ATTACKS = [
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 1'>",
    "<svg onload='window.pwned = 1'><circle r=1></svg>",
    "<iframe srcdoc='<script>parent.pwned = 1</script>'></iframe>",
    "[click](javascript:window.pwned=1)",
    "[click](  JaVaScRiPt:window.pwned=1)",
    "[click](data:text/html,<script>window.pwned=1</script>)",
    "[click](vbscript:x) <a href='javascript:window.pwned=1'>click</a>",
    "![x](x' onerror='window.pwned=1)",
    '![x](https://example.org/x.png "onload=window.pwned=1")',
    '```"><script>window.pwned=1</script>\ncode\n```',
    "<style>body { display: none }</style><p style='position:fixed;inset:0'>over</p>",
    "<form action='https://example.org'><input name=key></form>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=window.pwned=1&gt;'>",
    "<a id=sidebar name=sidebar>clobber</a><input name=attributes>",
    "# <b onmouseover=window.pwned=1>head</b>\n\n| <img src=x onerror=window.pwned=1> |\n| --- |\n| x |",
    "<base href='https://example.org/'><meta http-equiv=refresh content='0;url=https://example.org'>",
]
ALLOWED = {
    "a", "blockquote", "br", "button", "code", "del", "div", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p",
    "pre", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
LOOK_AT_REPLIES = """() => [...document.querySelectorAll('.reply *')].map(one => ({
  tag: one.localName, attributes: [...one.attributes].map(a => a.name), href: one.getAttribute('href')}))"""


def test_markup_from_a_model_does_nothing(chat: Chat) -> None:
    page = chat.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: asked.append("a dialog"))
    chat.begin()
    for number, attack in enumerate(ATTACKS):
        chat.send(attack)
        expect(page.locator(".turn.done")).to_have_count(number + 1)
    for element in page.evaluate(LOOK_AT_REPLIES):
        assert element["tag"] in ALLOWED, element
        assert not [name for name in element["attributes"] if name.startswith("on") or name in ("style", "id", "name")]
        assert element["href"] is None or element["href"].startswith(("https://", "http://", "mailto:")), element
    for link in page.locator(".reply a").all():
        link.click(trial=True)
        assert link.get_attribute("rel") == "noopener noreferrer nofollow"
    assert page.evaluate("() => window.pwned") is None
    assert [url for url in asked if "example.org" in url or url == "a dialog"] == []
    expect(page.locator(".reply").first).to_contain_text("<script>window.pwned = 1</script>")
    page.reload()  # the same from the history
    expect(page.locator(".turn.done")).to_have_count(len(ATTACKS))
    assert page.evaluate("() => window.pwned") is None


def test_the_policy_holds_if_all_else_fails(context: BrowserContext) -> None:
    page = context.new_page()  # one on which errors are expected
    sign_in(page, "/")
    said = page.evaluate("""() => new Promise(done => {
      const violated = [];
      document.addEventListener('securitypolicyviolation', event => violated.push(event.effectiveDirective));
      const script = document.createElement('script');
      try { script.textContent = 'window.pwned = 1'; document.body.append(script); } catch { violated.push('script'); }
      try { document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=1>'); } catch { violated.push('markup'); }
      const picture = new Image();
      picture.onerror = () => setTimeout(() => done(violated), 50);
      picture.src = 'https://example.org/x.png';
    })""")
    assert {"markup", "img-src"} <= set(said), said
    assert page.evaluate("() => window.pwned") is None


@pytest.fixture(scope="module")
def long_one(house: House) -> str:
    """A conversation of 500 turns."""
    key = house.open()
    for first in range(0, 500, 50):
        for number in range(first, first + 49):
            house.post(f"/api/v1/agents/{key}/messages", content=f"number {number}")
        house.say(key, f"number {first + 49}")
    return key


def test_a_history_of_500_turns_opens_at_its_end_and_can_be_read_to_its_beginning(chat: Chat, long_one: str) -> None:
    chat.open(long_one)
    expect(chat.reply()).to_have_text("number 499")
    expect(chat.turn()).to_be_in_viewport()
    expect(chat.page.locator(".turn")).to_have_count(40)
    earlier = chat.page.get_by_role("button", name="Earlier messages")
    for count in range(80, 501, 40):
        earlier.click()
        expect(chat.page.locator(".turn")).to_have_count(min(count, 500))
    earlier.click()
    expect(chat.page.locator(".turn")).to_have_count(500)
    expect(chat.reply(0)).to_have_text("number 0")
    expect(earlier).to_be_hidden()
    texts = chat.page.locator(".said").all_inner_texts()
    assert texts == [f"number {number}" for number in range(500)]


def test_a_slow_line_is_slow_and_nothing_else(page: Page, line: Line) -> None:
    line.slow(latency_seconds=0.2, bytes_per_second=80_000)
    page.goto(line.url)
    chat = Chat(page)
    chat.begin()
    chat.send("stream 300 5")
    chat.send("and this")
    chat.ends(" ".join(f"word{n}" for n in range(300)), 0)
    chat.ends("and this", 1)


def test_a_line_that_is_cut_for_a_while_resumes(page: Page, line: Line) -> None:
    page.goto(line.url)
    chat = Chat(page)
    chat.begin()
    chat.send("stream 150 20")
    expect(chat.reply()).to_contain_text("word3")
    line.cut()
    expect(page.get_by_text("Connection lost. Reconnecting…")).to_be_visible()
    line.heal()
    chat.ends(" ".join(f"word{n}" for n in range(150)))
    expect(page.get_by_text("Connection lost")).to_have_count(0)


def test_plain_http_under_a_name_works_too(chromium_context: BrowserContext, house: House) -> None:
    """There a browser says nothing of where a request comes from but its Referer."""
    page = chromium_context.new_page()
    place = house.url.replace("127.0.0.1", ANOTHER_NAME)
    sign_in(page, f"{place}/")
    assert not page.evaluate("() => isSecureContext")
    chat = Chat(page)
    chat.begin()
    chat.send("stream 20 10")
    chat.ends(" ".join(f"word{n}" for n in range(20)))
    page.goto(f"{place}/ops")
    expect(page.locator("#state")).to_have_text("Live")


def serious(page: Page) -> list[str]:
    """What axe-core finds that is serious or worse."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]


def in_colours(page: Page, scheme: str) -> None:
    """As the system says; or, where the driver cannot have it say so, by the page's own button."""
    assert page.context.browser is not None
    if page.context.browser.browser_type.name == "chromium":
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    button = page.get_by_role("button", name="Theme")
    for _ in range(3):
        red = page.evaluate("() => Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
        if (red > 127) is (scheme == "light"):
            return
        button.click()
    raise AssertionError(f"the page does not become {scheme}")


def at_rest(page: Page) -> None:
    """Colours that fade in and drawers that slide have arrived. What moves for ever is no transition."""
    page.evaluate("""() => Promise.allSettled(
      document.getAnimations().filter(one => one instanceof CSSTransition).map(one => one.finished))""")


def test_nothing_serious_for_those_who_cannot_see_or_point(chat: Chat, house: House) -> None:
    page = chat.page
    key = house.open()
    house.say(key, "# A head\n\nText with `code`, a [link](https://example.org).\n\n```python\ncode\n```\n\n"
              "| a | b |\n| - | - |\n| 1 | 2 |\n\n> quote", "crash", "fail MY_CODE because", "/new")  # fmt: skip
    house.post(f"/api/v1/agents/{key}/messages", content="ask Why?")
    house.post(f"/api/v1/agents/{key}/messages", content="waits")
    chat.open(key)
    expect(page.locator(".turn.waiting")).to_have_count(1)
    expect(page.get_by_label("Your answer")).to_be_visible()
    for scheme in ("light", "dark"):
        in_colours(page, scheme)
        at_rest(page)
        keep(page, f"chat-{scheme}")
        assert serious(page) == []
    page.set_viewport_size({"width": 390, "height": 800})
    page.get_by_role("button", name="Conversations", exact=True).click()
    at_rest(page)
    assert serious(page) == []


def test_nothing_serious_in_the_dialog_for_signing_in(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/")
    expect(page.get_by_label("API key")).to_be_focused()
    assert serious(page) == []
    sign_in(page, "/")


def test_the_operations_page_too(context: BrowserContext, house: House) -> None:
    page = context.new_page()
    sign_in(page, "/ops")
    expect(page.locator(".state.live")).to_be_visible()
    for scheme in ("light", "dark"):
        in_colours(page, scheme)
        at_rest(page)
        keep(page, f"ops-{scheme}")
        assert serious(page) == []


def test_the_snippet_of_the_docs_runs_as_it_stands(chromium_context: BrowserContext, house: House) -> None:
    text = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
    [snippet] = re.findall(r"```html\n(.*?)```", text, re.DOTALL)
    assert len(snippet.splitlines()) <= 40
    page = chromium_context.new_page()
    page.on("dialog", lambda dialog: dialog.accept(ADMIN_KEY))
    # On a page of the same origin that has no policy of its own.
    page.route("**/snippet", lambda route: route.fulfill(body=snippet, content_type="text/html"))
    page.goto("/snippet")
    expect(page.locator("#reply")).to_have_text("hello")

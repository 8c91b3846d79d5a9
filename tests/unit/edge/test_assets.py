"""The pages' files: other people's are unmodified, own ones small, and every code that has advice is a code."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from edge.assets import CONTENT_SECURITY_POLICY, load_assets
from lobu_actors.contract.errors import ApiError, TurnError

WEB = Path(__file__).parents[3] / "edge" / "web"
VENDORED = {
    "marked.esm.js": "5371fea86fd0656b4fc7bea7c94c663109d82789b69433eeee78d42895aa44de",
    "marked.LICENSE": "8e3a3f82f59a60958f56ca08f445647c32a4733dc7ca6c2c46f6eb898471ab9c",
    "purify.min.js": "f69a46022ab1f53e969c8ebbca98172c8995785a9b3be72ea4a12d25b1a1bf67",
    "purify.LICENSE": "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
}
MOST_BYTES = 150_000
MOST_LINES = 400


def needed(page: str) -> set[str]:
    """A page and every file that it loads."""
    found, open_ = set(), {page}
    while open_:
        name = open_.pop()
        found.add(name)
        text = load_assets()[name].content.decode()
        if name in VENDORED:
            continue
        if name.endswith(".html"):
            open_ |= set(re.findall(r'(?:src|href)="web/([^"]+)"', text)) - found
        elif name.endswith(".js"):
            open_ |= set(re.findall(r'(?:from|import) "\./([^"]+)"', text)) - found
    return found


def test_other_peoples_files_are_as_they_published_them() -> None:
    assert {path.name for path in (WEB / "vendor").iterdir()} - {"README.md"} == set(VENDORED)
    for name, expected in VENDORED.items():
        assert hashlib.sha256((WEB / "vendor" / name).read_bytes()).hexdigest() == expected, name


@pytest.mark.parametrize("page", ["chat.html", "ops.html"])
def test_a_page_with_all_that_it_loads_is_light(page: str) -> None:
    """As it is stored; over the line it is compressed to a third."""
    weight = sum(len(load_assets()[name].content) for name in needed(page))
    assert weight < MOST_BYTES


def test_every_file_is_used() -> None:
    assert needed("chat.html") | needed("ops.html") == set(load_assets())


@pytest.mark.parametrize("path", [path for path in sorted(WEB.iterdir()) if path.is_file()], ids=lambda path: path.name)
def test_own_files_are_short_and_have_nothing_inline(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    if path.suffix == ".html":
        assert re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\son\w+=", text) is None
    if path.suffix == ".js":
        assert re.search(r"\.(inner|outer)HTML|insertAdjacentHTML|document\.write|\beval\(", text) is None


def test_the_policy_names_nobody_else_and_nothing_unsafe() -> None:
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "http" not in CONTENT_SECURITY_POLICY
    assert "*" not in CONTENT_SECURITY_POLICY


def test_advice_is_for_codes_that_there_are_and_for_every_way_a_turn_fails() -> None:
    named = set(re.findall(r"^  ([A-Z_]+):", (WEB / "codes.js").read_text(), re.MULTILINE)) - {"UNREACHABLE"}
    assert named <= {code.value for code in TurnError} | {code.value for code in ApiError}
    assert {code.value for code in TurnError} <= named

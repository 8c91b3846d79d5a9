"""A sandbox that does not hold on this host, or is not there: who asked for it does not start, others do."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from lobu_actors.conversation.worker_port import Gone
from tests.sandbox_world import PYTHON, ContainedHost, bwrap_missing, contained_host

_LEAKY = """#!{python}
import os, sys
words = sys.argv[1:]
for word, values in {dropped}:
    while word in words[: words.index("--")]:
        at = words.index(word)
        del words[at : at + 1 + values]
os.execv({bwrap!r}, [{bwrap!r}, *words])
"""
_NONE_AT_ALL = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""


def _make(host: ContainedHost) -> None:
    host.make("boxed", sandbox="bwrap")
    host.make("plain")


async def _refusal() -> str:
    """What a sandboxed worker's start says, while that of another one's does well."""
    async with contained_host(_make) as host:
        client = host.start("boxed")
        gone = await client.gone()
        assert gone.reason == Gone.NOT_STARTED
        assert await host.run(await host.ready("plain"), "print('works')") == "works"
        return gone.detail


def _instead_of_bwrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "bwrap"
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


async def test_without_bwrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sh", "python3"):
        (tmp_path / name).symlink_to(shutil.which(name) or sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await _refusal() == (
        "Workers of type 'boxed' do not start on this host: its sandbox needs the program bwrap "
        "(package bubblewrap, 0.8 or newer)."
    )


async def test_with_a_bwrap_that_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _instead_of_bwrap(tmp_path, monkeypatch, _NONE_AT_ALL)
    assert "its sandbox does not hold, it can " in await _refusal()
    assert not [name for folder in ("/", "/usr", "/etc") for name in os.listdir(folder) if "bait" in name]


async def test_with_a_bwrap_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _instead_of_bwrap(tmp_path, monkeypatch, "#!/bin/sh\nexit 1\n")
    assert "its sandbox does not hold, its test gave no answer" in await _refusal()


@pytest.mark.skipif(bool(bwrap_missing()), reason=bwrap_missing())
@pytest.mark.parametrize(
    ("dropped", "found"),
    [
        ([("--unshare-net", 0)], "it reaches a listener on the host"),
        ([("--unshare-pid", 0)], "processes"),
        ([("--remount-ro", 1)], "it can write /.lobu-bait-"),
    ],
)
async def test_with_a_bwrap_that_leaves_something_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropped: list[tuple[str, int]], found: str
) -> None:
    python = sys.executable if PYTHON == "python" else PYTHON
    script = _LEAKY.format(python=python, dropped=dropped, bwrap=shutil.which("bwrap"))
    _instead_of_bwrap(tmp_path, monkeypatch, script)
    detail = await _refusal()
    assert detail.startswith("Workers of type 'boxed' do not start on this host: its sandbox does not hold, ")
    assert found in detail

"""What a user of the units can get at, as the kernel would judge."""

from __future__ import annotations

import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.systemd.reach import out_of_reach

NOBODY = "lobu-user-that-is-still-to-be-made"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's own, which is below a folder for this user alone."""
    with tempfile.TemporaryDirectory(prefix="lobu-reach-", dir="/tmp") as name:
        made = Path(name)
        made.chmod(0o755)
        (made / "venv").mkdir()
        (made / "venv" / "lobu").write_text("")
        yield made


def test_what_everybody_may_read_is_in_reach(folder: Path) -> None:
    assert out_of_reach([folder / "venv" / "lobu", folder / "venv"], NOBODY) is None


@pytest.mark.parametrize(("mode", "part"), [(0o700, "venv"), (0o600, "venv/lobu"), (0o750, "venv")])
def test_the_place_that_closes_the_way_is_named(folder: Path, mode: int, part: str) -> None:
    (folder / part).chmod(mode)
    assert out_of_reach([folder / "venv" / "lobu"], NOBODY) == folder / part
    owner = pwd.getpwuid((folder / part).stat().st_uid).pw_name
    assert out_of_reach([folder / "venv" / "lobu"], owner) is None, "its owner may"


def test_a_folder_that_may_be_passed_but_not_read_is_no_program_s_place(folder: Path) -> None:
    (folder / "venv").chmod(0o711)
    assert out_of_reach([folder / "venv" / "lobu"], NOBODY) is None
    assert out_of_reach([folder / "venv"], NOBODY) == folder / "venv"


def test_links_are_followed(folder: Path) -> None:
    (folder / "closed").mkdir(mode=0o700)
    (folder / "closed" / "python").write_text("")
    (folder / "venv" / "python").symlink_to(folder / "closed" / "python")
    assert out_of_reach([folder / "venv" / "python"], NOBODY) == folder / "closed"

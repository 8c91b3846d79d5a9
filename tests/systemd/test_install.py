"""What `lobu systemd install` writes, and what systemd's own tools say of it. Nothing is booted."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from supervisor.cli.systemd import command
from supervisor.config.errors import ConfigError
from supervisor.config.load import load_settings
from supervisor.systemd.render import MARK, UNITS, Installation

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="there is no systemd-analyze here (apt-get install systemd)")
SECONDS = 120


def run(*words: str) -> str:
    done = CliRunner().invoke(command, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def tree(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    if shutil.which("systemd-sysusers") is None:
        pytest.skip("there is no systemd here (apt-get install systemd)")
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def units(root: Path) -> list[Path]:
    run("install", "--root", str(root), "--embedded", "--instances", "3")
    return sorted(path for path in (root / UNITS).iterdir() if path.is_file())


def test_a_dry_run_writes_nothing(root: Path) -> None:
    assert "would write /etc/systemd/system/lobu.target" in run(
        "install", "--root", str(root), "--embedded", "--dry-run"
    )
    assert tree(root) == {}


def test_a_second_install_changes_nothing(root: Path, units: list[Path]) -> None:
    before = tree(root)
    output = run("install", "--root", str(root), "--embedded", "--instances", "3")
    assert "in place already" in output
    assert tree(root) == before


def test_keys_and_configuration_are_made_once_and_stay(root: Path, units: list[Path]) -> None:
    keys = root / "etc/lobu/credentials/jwt_keys"
    before = keys.read_text()
    assert keys.stat().st_mode & 0o777 == 0o600
    assert keys.parent.stat().st_mode & 0o777 == 0o700
    (root / "etc/lobu/lobu.toml").write_text("# mine\n")
    run("install", "--root", str(root), "--embedded", "--instances", "1")
    assert keys.read_text() == before
    assert (root / "etc/lobu/lobu.toml").read_text() == "# mine\n"
    target = (root / UNITS / "lobu.target").read_text()
    assert "lobu-edge@1.service" in target
    assert "lobu-edge@2.service" not in target
    run("uninstall", "--root", str(root))
    assert keys.read_text() == before
    assert not [path for path in tree(root) if "lobu" in path and not path.startswith("etc/lobu/")]


def test_another_database_takes_the_embedded_one_away(root: Path, units: list[Path]) -> None:
    url = "postgresql://lobu@db.example/lobu"
    run("install", "--root", str(root), "--database-url", url)
    assert not (root / UNITS / "lobu-postgres.service").exists()
    assert "postgres" not in (root / UNITS / "lobu.target").read_text()
    assert (root / "etc/lobu/credentials/database_url").read_text().strip() == url


def test_a_unit_of_somebody_else_is_not_overwritten(root: Path) -> None:
    place = root / UNITS / "lobu-supervisor.service"
    place.parent.mkdir(parents=True)
    place.write_text("[Service]\nExecStart=/mine\n")
    with pytest.raises(ConfigError, match="not written by this command"):
        run("install", "--root", str(root), "--embedded")
    assert tree(root) == {str(place.relative_to(root)): "[Service]\nExecStart=/mine\n"}


@pytest.mark.parametrize("words", [(), ("--embedded", "--database-url", "postgresql://x/y")])
def test_the_database_is_said_once(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert CliRunner().invoke(command, ["install", "--root", str(tmp_path), *words]).exit_code == 2


def test_every_placeholder_is_filled_in(units: list[Path]) -> None:
    for path in units:
        text = path.read_text()
        assert text.startswith(MARK)
        assert re.findall(r"@[A-Z_]+@", text) == []


def test_the_configuration_that_it_writes_is_valid(root: Path) -> None:
    run("install", "--root", str(root), "--embedded", "--listen", "[::]:9000")
    found = load_settings(root / "etc/lobu/lobu.toml", data_dir=root, environ={})
    assert found.server.public_url == "http://[::1]:9000"
    assert [agent.id for agent in found.agents] == ["echo"]


def test_homes_are_hidden_unless_the_program_lies_in_one() -> None:
    lobu = Path("/opt/lobu/bin/lobu")
    assert Installation(lobu=lobu, code=(Path("/opt/lobu"),)).protect_home == "yes"
    assert Installation(lobu=lobu, code=(Path("/opt/lobu"), Path("/home/ann/python"))).protect_home == "read-only"


def test_credentials_are_read_from_the_folder_that_the_unit_names(tmp_path: Path) -> None:
    (tmp_path / "admin_key").write_text("lobu_from-a-credential\n")
    (tmp_path / "database_url").write_text("postgresql://lobu@db/credential\n")
    found = load_settings(data_dir=tmp_path, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert (found.admin_key, found.database.url) == ("lobu_from-a-credential", "postgresql://lobu@db/credential")
    over = {"CREDENTIALS_DIRECTORY": str(tmp_path), "DATABASE_URL": "postgresql://lobu@db/environment"}
    assert load_settings(data_dir=tmp_path, environ=over).database.url == "postgresql://lobu@db/environment"


@needs_systemd
def test_systemd_has_not_a_word_to_say_about_the_units(units: list[Path]) -> None:
    words = [str(ANALYZE), "verify", "--man=no", *map(str, units)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize(
    ("unit", "threshold"),
    [
        ("lobu-edge@.service", 20),
        ("lobu-supervisor.service", 20),
        ("lobu-postgres.service", 20),
        ("lobu-spawner.service", 35),
    ],
)
def test_exposure(root: Path, units: list[Path], unit: str, threshold: int) -> None:
    """In tenths, as systemd-analyze takes it. The spawner's figure stands in its unit, with the reasons."""
    place = str(root / UNITS / unit)
    words = [str(ANALYZE), "security", "--offline=true", "--no-pager", f"--threshold={threshold}", place]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout.splitlines()[-1:]

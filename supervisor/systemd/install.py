"""Writes an installation, as the files of `render` say, and takes it back. Idempotent; says what it does.

Overwrites nothing that it did not write: a unit without its mark is refused, and what the operator fills in (the
configuration, the keys) is made once and then left alone, by an uninstall too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from supervisor.config.errors import ConfigError
from supervisor.systemd.render import MARK, UNITS, File, Installation, files_of, removable

COMMAND_SECONDS = 600.0  # a stop drains
Tell = Callable[[str], None]


class Target(msgspec.Struct, frozen=True):
    """Where to install. `root` other than `/` is an image: nothing runs in it, so nothing is reloaded or stopped."""

    root: Path
    dry_run: bool
    tell: Tell

    @property
    def is_running(self) -> bool:
        return self.root == Path("/")

    def run(self, *words: str) -> None:
        """Raises ConfigError with what the program said."""
        if self.dry_run:
            self.tell(f"would run: {' '.join(words)}")
            return
        if shutil.which(words[0]) is None:
            raise ConfigError(f"there is no {words[0]} here; this needs a machine with systemd.")
        done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
        if done.returncode != 0:
            raise ConfigError(f"`{' '.join(words)}` failed: {done.stderr.strip() or done.stdout.strip()}")

    @property
    def of_root(self) -> tuple[str, ...]:
        return () if self.is_running else (f"--root={self.root}",)


def install(installation: Installation, target: Target) -> bool:
    """Write what is missing or differs; True when anything was. Starts nothing. Raises ConfigError, OSError."""
    files = files_of(installation)
    foreign = [file.path for file in files if not file.once and MARK in file.text and _is_foreign(target.root, file)]
    if foreign:
        raise ConfigError(f"{Path('/') / foreign[0]} was not written by this command; move it away first.")
    written = [file.path for file in files if _write(file, target)]
    removed = _remove_stale(files, target)
    if written or removed:
        target.run("systemd-sysusers", *target.of_root)
        target.run("systemd-tmpfiles", *target.of_root, "--create", "--prefix", str(installation.data_dir))
        if target.is_running:
            target.run("systemctl", "daemon-reload")
        target.run("systemctl", *target.of_root, "enable", "lobu.target")
    return bool(written or removed)


def uninstall(target: Target) -> bool:
    """Stop, which drains, and remove the units; True when there was anything. Raises ConfigError, OSError."""
    found = [path for path in removable() if (target.root / path).exists()]
    if not found:
        return False
    if target.is_running:
        # All by name: of a target alone systemctl does not wait for the stops that follow from its own.
        target.run("systemctl", "stop", "lobu.target", "lobu-*")
    target.run("systemctl", *target.of_root, "disable", "lobu.target")
    for path in found:
        _remove(path, target)
    if target.is_running:
        target.run("systemctl", "daemon-reload")
    return True


def _is_foreign(root: Path, file: File) -> bool:
    place = root / file.path
    return place.exists() and not place.read_text(errors="replace").startswith(MARK)


def _write(file: File, target: Target) -> bool:
    place = target.root / file.path
    if place.exists() and (file.once or place.read_text() == file.text):
        return False
    word = "write" if not target.dry_run else "would write"
    target.tell(f"{word} {Path('/') / file.path}")
    if target.dry_run:
        return True
    place.parent.mkdir(mode=0o700 if file.mode == 0o600 else 0o755, parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, file.mode)
    with open(descriptor, "w") as out:
        out.write(file.text)
    os.replace(temporary, place)
    return True


def _remove_stale(files: Sequence[File], target: Target) -> list[Path]:
    """The unit of an embedded database that is not used any more, the order of edges that are not wanted any more."""
    keep = {file.path for file in files}
    stale = [path for path in removable() if path not in keep and (target.root / path).exists()]
    for path in stale:
        _remove(path, target)
    return stale


def _remove(path: Path, target: Target) -> None:
    """And the folder of drop-ins that it was alone in."""
    target.tell(f"{'would remove' if target.dry_run else 'removed'} {Path('/') / path}")
    if target.dry_run:
        return
    (target.root / path).unlink()
    if path.parent.suffix == ".d" and path.parent.parent == UNITS and not any((target.root / path.parent).iterdir()):
        (target.root / path.parent).rmdir()

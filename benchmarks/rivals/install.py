"""Each rival's own environment under `.venv-rivals/NAME`, from pinned versions. The only place that downloads."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rivals.places import ROOT

ENVIRONMENTS = ROOT / ".venv-rivals"
REQUIREMENTS = Path(__file__).with_name("requirements")
INSTALL_SECONDS = 900
COMPILE = (
    "[Into | Files] = init:get_plain_arguments(),"
    "Done = [compile:file(File, [report, warnings_as_errors, {outdir, Into}]) || File <- Files],"
    "halt(case lists:member(error, Done) of true -> 1; false -> 0 end)."
)


class NotToBeHad(Exception):
    """A rival's packages cannot be installed here; says why in one line."""


def installed(name: str) -> bool:
    """Whether that rival is there, with the pins of now."""
    stamp = ENVIRONMENTS / name / ".installed"
    return stamp.exists() and stamp.read_text() == _pins(name)


def python_of(name: str) -> str:
    """The interpreter of that rival's venv, which is made when it is not there or its pins have changed."""
    folder = ENVIRONMENTS / name
    if not installed(name):
        shutil.rmtree(folder, ignore_errors=True)
        run(name, [sys.executable, "-m", "venv", str(folder)])
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run(name, [*pip, "--requirement", str(REQUIREMENTS / f"{name}.txt")])
        _stamp(name)
    return str(folder / "bin" / "python")


def erlang(sources: Path) -> Path:
    """The folder of an Erlang out of Debian's packages, unpacked, not installed; `sources` are compiled in `ebin`."""
    name = "otp"
    folder, debs = ENVIRONMENTS / name, ENVIRONMENTS / name / "debs"
    if not installed(name):
        shutil.rmtree(folder, ignore_errors=True)
        debs.mkdir(parents=True)
        download = ["apt-get", "download", "--quiet", *_pins(name).split()]
        try:
            run(name, download, debs)
        except NotToBeHad:  # the package lists may be old, or not there yet
            run(name, ["apt-get", "update"])
            run(name, download, debs)
        for file in debs.glob("*.deb"):
            run(name, ["dpkg", "-x", str(file), str(folder)])
        _stamp(name)
    ebin = folder / "ebin"
    ebin.mkdir(exist_ok=True)
    files = [str(path) for path in sorted(sources.glob("*.erl"))]
    run(name, [*erlang_command(folder), "-noshell", "-eval", COMPILE, "-extra", str(ebin), *files])
    return folder


def erlang_command(folder: Path) -> list[str]:
    """What `erl` does, for one that was moved."""
    root = folder / "usr" / "lib" / "erlang"
    [programs] = root.glob("erts-*/bin")
    where = {"ROOTDIR": root, "BINDIR": programs, "EMU": "beam", "PROGNAME": "erl", "ERL_CRASH_DUMP_BYTES": 0}
    return ["env", *(f"{key}={value}" for key, value in where.items()), str(programs / "erlexec")]


def node_package(name: str, package: str) -> Path:
    """The folder of a package of npm's registry that is one of that rival's parts; its scripts are not run."""
    folder = ENVIRONMENTS / name
    pinned = (REQUIREMENTS / f"{name}-npm.txt").read_text().split()
    place = folder / "node_modules" / package
    if not place.exists():
        run(name, ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder), *pinned])
    return place


def versions(name: str) -> str:
    """The pins, in one line; empty when there are none."""
    files = sorted(REQUIREMENTS.glob(f"{name}*.txt"))
    return ", ".join(pin for file in files for pin in file.read_text().split())


def _pins(name: str) -> str:
    return (REQUIREMENTS / f"{name}.txt").read_text()


def _stamp(name: str) -> None:
    (ENVIRONMENTS / name / ".installed").write_text(_pins(name))


def run(name: str, command: Sequence[str], cwd: Path | None = None) -> str:
    """What it printed. Raises NotToBeHad with its last line when it fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS, cwd=cwd)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotToBeHad(f"{name}: {error}") from None
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise NotToBeHad(f"{name}: `{' '.join(command[:4])} …` failed: {last}")
    return done.stdout

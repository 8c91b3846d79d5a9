"""A rolling restart of this host's units: each edge in turn, then the supervisor; each must be ready before the next.

The spawner is left alone: its workers, and so the turns, outlive it all. With `drain` it is not: then this host first
hands everything to the others, and every program of it is a new one afterwards.

`systemctl restart` comes back when the new process said that it is ready (Type=notify), or failed to.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable

import trio

from supervisor.config.errors import ConfigError
from supervisor.rollout_turn import RolloutFailed

SUPERVISOR = "lobu-supervisor.service"
SPAWNER = "lobu-spawner.service"
EDGES = "lobu-edge@*.service"
UNIT_SECONDS = 900.0  # systemd's own limits end it before; a stop drains
ASK_SECONDS = 30.0
_EDGE = re.compile(r"lobu-edge@(\d+)\.service\Z")


async def roll(tell: Callable[[str], None], *, drain: bool = False) -> list[str]:
    """Gives the units that were restarted, in order; `tell` hears of each. Raises ConfigError, RolloutFailed."""
    wanted, running = await wanted_edges(), await running_edges()
    behind = [SUPERVISOR] if not drain else [SPAWNER, SUPERVISOR]
    units = [*wanted, *behind]
    for number, unit in enumerate(units, start=1):
        rest = ", ".join(units[number:]) or "nothing"
        if drain and unit == SPAWNER:
            await _systemctl("stop", SUPERVISOR, rest=f"{SPAWNER}, {rest}")
            tell(f"{SUPERVISOR} has handed everything over")
        await _systemctl("restart", unit, rest=rest)
        tell(f"{number}/{len(units)} {unit} is ready")
    for unit in running:
        if unit not in wanted:
            await _systemctl("stop", unit, rest="nothing")
            tell(f"{unit} is stopped: it belongs to this host no more")
    return units


async def wanted_edges() -> list[str]:
    """Those that `lobu systemd install --instances` says, in order. Raises ConfigError when there are none."""
    found = _in_order((await unit_property("lobu.target", "Wants")).split())
    if not found:
        raise ConfigError(
            "no units are installed here; run `lobu systemd install`, then `systemctl start lobu.target`."
        )
    return found


async def running_edges() -> list[str]:
    """The edges of this host that are active, in order. Raises ConfigError when there are none."""
    listed = await _ask("list-units", "--plain", "--no-legend", "--state=active", EDGES)
    found = _in_order([line.split()[0] for line in listed.splitlines() if line.strip()])
    if not found:
        raise ConfigError("no edge is active here; start them with `systemctl start lobu.target`.")
    return found


async def unit_property(unit: str, name: str) -> str:
    """Raises ConfigError where there is no systemd."""
    return (await _ask("show", "--value", "--property", name, unit)).strip()


def _in_order(units: list[str]) -> list[str]:
    edges = [(int(found[1]), unit) for unit in units if (found := _EDGE.match(unit))]
    return [unit for _, unit in sorted(edges)]


async def _ask(*words: str) -> str:
    if shutil.which("systemctl") is None:
        raise ConfigError("there is no systemctl here; `lobu rollout plan` says what to do without systemd.")
    with trio.fail_after(ASK_SECONDS):
        done = await trio.run_process(["systemctl", *words], capture_stdout=True, capture_stderr=True, check=False)
    return done.stdout.decode()


async def _systemctl(what: str, unit: str, *, rest: str) -> None:
    with trio.move_on_after(UNIT_SECONDS):
        done: subprocess.CompletedProcess[bytes] = await trio.run_process(
            ["systemctl", what, unit], capture_stdout=True, capture_stderr=True, check=False
        )
        if done.returncode == 0:
            return
        said = " ".join(done.stderr.decode(errors="replace").split())
        how = "did not become ready again" if what == "restart" else "did not stop in order"
        raise RolloutFailed(f"{unit} {how}: {said} Not touched: {rest}. See `journalctl -u {unit}`.")
    raise RolloutFailed(f"`systemctl {what} {unit}` did not end within {UNIT_SECONDS:g} s. Not touched: {rest}.")

"""The harness itself: it boots, a unit works, the disk outlives a reboot, and nothing of it reaches this machine."""

from __future__ import annotations

import os
import subprocess
import sys

import trio

from tests.system.lobu_process import until
from tests.systemd.harness import BOOT_SECONDS, FOLDER, Machine, machine

UNIT = """
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'echo hello from inside; date --utc --iso-8601=seconds > /var/made-inside'
[Install]
WantedBy=multi-user.target
"""


async def test_it_boots_and_a_unit_works(off: Machine) -> None:
    off.disk("etc/systemd/system/trivial.service").write_text(UNIT)
    await off.boot()
    assert await off.run("systemctl", "is-system-running") == "running"
    await off.run("systemctl", "enable", "--now", "trivial.service")
    assert await off.show("trivial.service", "ActiveState") == "active"
    assert "hello from inside" in await off.journal("trivial.service")
    assert off.path("/var/made-inside").exists()
    assert not os.path.lexists("/var/made-inside")  # noqa: ASYNC240
    await _survives_a_reboot(off)


async def _survives_a_reboot(made: Machine) -> None:
    first = made.path("/var/made-inside").read_text()
    made.path("/var/kept").write_text("kept")
    await made.reboot()
    assert made.path("/var/kept").read_text() == "kept"
    assert await made.show("trivial.service", "ActiveState") == "active"
    assert made.path("/var/made-inside").read_text() >= first
    made.power_off()
    await made.boot()
    assert made.path("/var/kept").read_text() == "kept"


# Boots, says which process its systemd is, and is killed before it can clean up.
BOOTS = """
import trio
from tests.systemd.harness import machine
async def main():
    async with machine() as made:
        await made.boot()
        print(made.init, made.disk("x").parent.parent, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


async def test_nothing_stays_of_a_machine_whose_owner_was_killed(can_boot: None) -> None:
    owner = await trio.lowlevel.open_process(
        [sys.executable, "-c", BOOTS], cwd=FOLDER.parents[1], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert owner.stdout is not None
    try:
        with trio.fail_after(BOOT_SECONDS):
            said = b""
            while not said.endswith(b"\n"):
                said += await owner.stdout.receive_some()
            init, folder = said.decode().split()
        assert os.path.isdir(folder)  # noqa: ASYNC240
    finally:
        owner.kill()
        await owner.wait()
        await owner.stdout.aclose()
    await until(lambda: not os.path.exists(f"/proc/{init}"), "its systemd ends with it")
    async with machine():
        assert not os.path.exists(folder)  # noqa: ASYNC240

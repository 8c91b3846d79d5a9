"""The harness itself: it boots, a unit works, the disk outlives a reboot, and nothing of it reaches this machine."""

from __future__ import annotations

import os

from tests.systemd.harness import Machine

UNIT = """
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'echo hello from inside; date > /var/made-inside'
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

"""The short form of the rolling restarts, and a rollout that fails."""

from __future__ import annotations

import os

import pytest

from tests.systemd.harness import Failed, Machine
from tests.systemd.installed import EDGES, LOBU, SUPERVISOR, installed
from tests.systemd.rolling import Options, lines, roll


@pytest.mark.timeout(300)
async def test_the_short_form_of_rolling_restarts(off: Machine) -> None:
    report = await roll(off, Options(rounds=1, clients=10))
    print("\n".join(lines(report)))
    assert report.faults == []
    assert report.completed >= 10
    assert report.resumes
    assert report.refused == 0


@pytest.mark.timeout(300)
@pytest.mark.slow
async def test_a_rollout_stops_at_the_first_unit_that_is_not_ready_again(off: Machine) -> None:
    async with installed(off) as lobu:
        before = [await lobu.pid(unit) for unit in (EDGES[1], SUPERVISOR)]
        folder = off.path(f"/etc/systemd/system/{EDGES[0]}.d")
        folder.mkdir(exist_ok=True)
        (folder / "broken.conf").write_text("[Service]\nExecStartPre=/bin/false\n")
        await off.run("systemctl", "daemon-reload")
        with pytest.raises(Failed) as failed:
            await off.run(LOBU, "rollout", "run")
        assert "lobu-edge@1.service did not become ready again" in str(failed.value)
        assert f"Not touched: {EDGES[1]}, {SUPERVISOR}" in str(failed.value)
        assert [await lobu.pid(unit) for unit in (EDGES[1], SUPERVISOR)] == before
        assert (await (await lobu.client.open()).ask("the other edge serves")).event == "complete"


@pytest.mark.timeout(300)
@pytest.mark.slow
async def test_the_start_of_an_edge_does_not_make_the_shared_socket_block(off: Machine) -> None:
    """An edge that lost the race for a connection would then stand still in accept(2)."""
    async with installed(off) as lobu:
        folder = off.path(f"/etc/systemd/system/{EDGES[1]}.d")
        folder.mkdir(exist_ok=True)
        (folder / "holds.conf").write_text("[Service]\nType=exec\nExecStart=\nExecStart=/bin/sleep 1000\n")
        await off.run("systemctl", "daemon-reload")
        await off.run("systemctl", "restart", EDGES[1])  # holds the socket, as systemd passed it, and leaves it so
        said = await off.run("cat", f"/proc/{await lobu.pid(EDGES[0])}/fdinfo/3")
        flags = next(int(line.split()[1], 8) for line in said.splitlines() if line.startswith("flags:"))
        assert flags & os.O_NONBLOCK

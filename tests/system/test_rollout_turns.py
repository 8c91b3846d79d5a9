"""Two hosts on one database are restarted by two operators at once: one after the other, whoever is first."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

from lobu_actors.store.postgres import PostgresStore
from supervisor.membership import HOST_ID_FILE
from supervisor.rollout_turn import RolloutFailed, our_turn
from tests.system.conftest import Start, client_of
from tests.system.lobu_process import LobuRun

pytestmark = pytest.mark.timeout(240)

CONFIG = """
[limits]
host_ttl_seconds = 3
host_renew_seconds = 0.5
host_margin_seconds = 1
drain_grace_seconds = 5
[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
[[agents]]
id = "echo"
worker = "echo"
"""
SEVERAL = {"LOBU_ALLOW_MULTI_HOST": "1"}


def host_id(run: LobuRun) -> str:
    return Path(run.folder, ".lobu", HOST_ID_FILE).read_text()


@pytest.fixture
async def hosts(start_run: Start, database_url: str) -> list[LobuRun]:
    found = []
    for _ in range(2):
        found.append(await start_run(config=CONFIG, environment=SEVERAL))
    return found


async def test_never_two_of_them_are_down(hosts: list[LobuRun], database_url: str) -> None:
    down: list[str] = []
    most: list[int] = []
    told: list[str] = []

    async def roll(run: LobuRun, name: str) -> None:
        store = PostgresStore.connect(database_url)
        try:
            for _ in range(2):
                async with our_turn(store, host_id(run), name, told.append, wait_seconds=90, back_seconds=30):
                    down.append(name)
                    most.append(len(down))
                    assert await run.stop() == 0
                    await run.start()
                    down.remove(name)
        finally:
            store.close()

    talk = await client_of(hosts[0]).open()
    async with trio.open_nursery() as nursery:
        for run, name in zip(hosts, "ab", strict=True):
            nursery.start_soon(roll, run, name)
    assert most == [1] * 4
    assert any("is being restarted" in line for line in told), "the second one says what it waits for"
    assert (await talk.through(client_of(hosts[0])).ask("both are back")).event == "complete"


async def test_who_leaves_a_host_down_holds_up_all_others_until_it_is_back(
    hosts: list[LobuRun], database_url: str
) -> None:
    first, second = hosts
    store = PostgresStore.connect(database_url)
    turn = partial(our_turn, store, tell=lambda line: None, back_seconds=1)
    with pytest.raises(ExceptionGroup) as failed:
        async with turn(host_id(first), "a", wait_seconds=30):
            await first.stop()
    assert failed.group_contains(RolloutFailed, match="a is not back after 1 s")
    with pytest.raises(RolloutFailed, match=r"b was not touched.*a was being restarted and is not back"):
        async with turn(host_id(second), "b", wait_seconds=4):  # for a slow database to say why, at least once
            raise AssertionError("it is not its turn")
    await first.start()
    with pytest.raises(ExceptionGroup) as failed:
        async with turn(host_id(second), "b", wait_seconds=30):
            pass  # its turn has come; and it ends with an error, since nothing was restarted
    assert failed.group_contains(RolloutFailed, match="b is not back")
    store.close()

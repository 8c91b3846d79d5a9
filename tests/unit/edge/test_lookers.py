"""However many look, it is found out once a second, and what is dear to count takes a hundredth of the time."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from edge.lookers import GONE_SECONDS, MOST_SECONDS, SHOWN_HOSTS, House, Looker, Lookers, Paced
from edge.settings import EdgeSettings
from lobu_actors.contract.states import HostState
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.owed_protocol import OwedNow
from lobu_actors.store.records import Host

SETTINGS = EdgeSettings(look_seconds=1.0)


def host(name: str, **changes: Any) -> Host:
    return Host(name, name, None, "1", HostState.ACTIVE, 5.0, **changes)


class Asked:
    """Store and gateway at once: says how often it was asked what, and takes its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.away = False
        self.times: dict[str, int] = {}
        self.hosts = [host("h1", leases=7, epochs=9)]

    async def _ask(self, what: str) -> None:
        self.times[what] = self.times.get(what, 0) + 1
        await trio.sleep(self.seconds)
        if self.away:
            raise StoreUnavailable("away")

    async def count_owed(self, organization_id: str | None = None) -> OwedNow:
        await self._ask("owed")
        return OwedNow(1, 2, 3.0)

    async def list_hosts(self) -> list[Host]:
        await self._ask("counted")
        return self.hosts

    async def list_newest_hosts(self, *, limit: int) -> list[Host]:
        await trio.lowlevel.checkpoint()
        return [replace(one, leases=0, epochs=0) for one in self.hosts[:limit]]

    async def look(self, organization_id: str) -> list[Any]:
        await trio.lowlevel.checkpoint()
        self.times["look"] = self.times.get("look", 0) + 1
        return []


def lookers(asked: Asked) -> Lookers:
    return Lookers(asked, asked, SETTINGS)  # type: ignore[arg-type]


def told(frame: bytes | None) -> Any:
    assert frame is not None
    return json.loads(frame.split(b"data: ", 1)[1])


async def test_lookers_of_a_kind_share_their_frames(autojump_clock: trio.testing.MockClock) -> None:
    asked = Asked()
    all_of_them = lookers(asked)
    frames: dict[int, list[bytes | None]] = {}

    async def look(number: int, sees_hosts: bool) -> None:
        await trio.sleep(0.3 * number)
        with all_of_them.house("acme", sees_hosts=sees_hosts) as house:
            looker = Looker(house, SETTINGS, lambda: False)
            frames[number] = [await looker.next_chunk() for _ in range(10)]

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(look, number, number < 7)
    assert all(len(set(map(id, seen))) == 10 for seen in frames.values()), "never the same one again"
    assert asked.times["look"] <= 2 * (trio.current_time() - begun + 1)
    assert len({id(frame) for number in range(7) for frame in frames[number]}) <= trio.current_time() - begun + 1
    assert not {id(frame) for frame in frames[7]} & {id(frame) for frame in frames[0]}
    assert all_of_them.number == 0
    with all_of_them.house("acme", sees_hosts=True) as house:
        looks = asked.times["look"]
        await Looker(house, SETTINGS, lambda: False).next_chunk()
        assert asked.times["look"] == looks + 1, "what was seen before is forgotten"


async def test_who_leaves_while_a_frame_is_made_leaves_it_to_the_next(autojump_clock: trio.testing.MockClock) -> None:
    asked = Asked(seconds=0.5)
    house = House(asked, asked, 1.0, "acme", sees_hosts=False)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:

        async def leaves() -> None:
            with trio.move_on_after(0.2):
                await house.after(0)

        nursery.start_soon(leaves)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(1.0):
            number, frame = await house.after(0)
    assert (number, told(frame)["totals"]["running"]) == (1, 2)


async def test_a_frame_that_nobody_took_for_long_is_not_given_to_who_comes_then(
    autojump_clock: trio.testing.MockClock,
) -> None:
    asked = Asked()
    house = House(asked, asked, 1.0, "acme", sees_hosts=False)  # type: ignore[arg-type]
    assert (await house.after(0))[0] == 1
    await trio.sleep(0.5)
    assert (await house.after(0))[0] == 1
    await trio.sleep(60)
    assert (await house.after(0))[0] == 2


@pytest.mark.parametrize("seconds", [0.001, 0.1, 10.0])
async def test_counting_takes_a_hundredth_of_the_time(autojump_clock: trio.testing.MockClock, seconds: float) -> None:
    asked = Asked(seconds)
    counted = Paced(asked.list_hosts)
    begun, ages = trio.current_time(), []
    while trio.current_time() < begun + 600:
        ages.append((await counted.newest())[1])
        await trio.sleep(0.05)
    share = asked.times["counted"] * seconds / 600
    assert share <= 0.0101 or seconds == 10.0
    assert asked.times["counted"] >= 600 / (MOST_SECONDS + 2 * seconds), "however long it takes"
    assert max(ages) <= max(100 * seconds, 0.05) + seconds


async def test_counting_that_failed_is_tried_again_at_the_next_look(autojump_clock: trio.testing.MockClock) -> None:
    asked = Asked(0.01)
    house = House(asked, asked, 1.0, "acme", sees_hosts=True)  # type: ignore[arg-type]
    asked.away = True
    number, frame = await house.after(0)
    assert (told(frame)["store"], "leases" in told(frame)) == ("away", False)
    asked.away = False
    number, frame = await house.after(number)
    assert (told(frame)["store"], told(frame)["totals"]["queued"]) == ("ready", 1)


async def test_leases_are_as_the_hosts_say_now_and_counts_as_they_were(
    autojump_clock: trio.testing.MockClock,
) -> None:
    asked = Asked(0.1)
    asked.hosts = [
        host("new"),
        host("works", leases=7, epochs=9, queued=2, running=1),
        Host("dead", "dead", None, "1", HostState.DEAD, -3.0, leases=2, epochs=2),
        Host("gone", "gone", None, "1", HostState.ACTIVE, -GONE_SECONDS - 1),
    ]
    house = House(asked, asked, 1.0, "acme", sees_hosts=True)  # type: ignore[arg-type]
    number, _ = await house.after(0)
    asked.hosts = [replace(one, expires_in_seconds=6.0, leases=0) for one in asked.hosts[:2]]
    number, frame = await house.after(number)
    assert told(frame)["leases"][0]["expiresInSeconds"] == 3.9, "5.0 a second ago"
    _, frame = await house.after(number)
    found = {one["hostId"]: one for one in told(frame)["leases"]}
    assert list(found) == ["new", "works", "dead"]
    assert (found["works"]["leases"], found["works"]["taken"], found["works"]["queued"]) == (7, 2, 2)
    assert (found["works"]["expiresInSeconds"], found["new"]["leases"]) == (6.0, 0)
    assert found["dead"]["expiresInSeconds"] < -5.0
    asked.hosts = [host(f"h{number}", leases=1) for number in range(2 * SHOWN_HOSTS)]
    await trio.sleep(MOST_SECONDS)
    found = told((await house.after(number))[1])
    assert (len(found["leases"]), found["moreLeases"]) == (SHOWN_HOSTS, SHOWN_HOSTS)

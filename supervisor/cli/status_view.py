"""What `lobu status` shows, as lines of text. Pure: what was read goes in, lines come out, fitted to a screen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec

from lobu_actors.contract.errors import TurnError
from lobu_actors.contract.states import HostState
from lobu_actors.store.link_records import PeerLink
from lobu_actors.store.owed_protocol import OwedTurn
from lobu_actors.store.records import Conversation, Host, Totals
from supervisor.cli.options import safe_for_terminal
from supervisor.cli.table import aligned
from supervisor.rollout import SHOWN_ID

SHOWN_LINKS = 20
_HEAD = ("NAME", "ID", "STATE", "LEASE", "HOLDS", "TAKEN", "RUNNING", "QUEUED", "UP", "VERSION", "LINKS", "LINK")
_NUMBERS = frozenset({4, 5, 6, 7})
_LINKS_HEAD = ("FROM", "TO", "LINK", "LAG")
_MEBIBYTE = 1 << 20
_HEARTBEATS = TurnError.WORKER_UNRESPONSIVE.value

Json = dict[str, Any]


class Status(msgspec.Struct, frozen=True):
    hosts: list[Host]
    gone: int  # hosts that are not among them, since they are gone and hold nothing
    totals: Totals
    conversations: list[Conversation]  # the newest ones
    owed: list[OwedTurn]  # the oldest ones
    gateway_url: str
    gateway: str  # ready, not ready, away
    house: Json | None = None  # what the server tells of its hosts from inside; None: it does not


class Section(msgspec.Struct, frozen=True):
    """Lines under a title. One that `must` be seen is cut only when nothing else is left to cut."""

    title: str
    lines: list[str]
    must: bool = False


def sections(status: Status) -> list[Section]:
    totals = status.totals
    oldest = "" if totals.oldest_owed_seconds is None else f", oldest owed for {totals.oldest_owed_seconds:.1f} s"
    hosts = f"hosts          {len(status.hosts)}{f', and {status.gone} that are gone' if status.gone else ''}"
    head = [
        f"gateway        {status.gateway_url}  {status.gateway}",
        f"conversations  {totals.conversations}",
        f"turns          {totals.running} running, {totals.queued} queued{oldest}",
    ]
    table = aligned([_HEAD, *map(_row, status.hosts)], right=_NUMBERS) if status.hosts else []
    shown = [Section("", head, must=True), Section(hosts, table, must=True)]
    if links := _links(status.hosts):
        shown.append(Section("links", aligned([_LINKS_HEAD, *links[:SHOWN_LINKS]], right=frozenset({3}))))
    if status.owed:
        shown.append(Section("owed turns", _owed(status)))
    if status.house is not None:
        shown += _inside(status.house)
    newest = [
        (one.ref.conversation_id, str(one.running), "running", str(one.queued), "queued")
        for one in status.conversations
    ]
    if newest:
        shown.append(Section("conversations", aligned(newest, right=frozenset({1, 3}))))
    return shown


def flat(shown: Sequence[Section]) -> list[str]:
    return [safe_for_terminal(line) for one in shown for line in ([one.title] if one.title else []) + one.lines]


def fitted(shown: Sequence[Section], width: int, height: int) -> list[str]:
    """At most `height` lines of at most `width` characters.

    The ends of the longest sections are left out first, then whole ones from the last on, then what must be seen.
    """
    kept = list(shown)
    lengths = [len(one.lines) for one in kept]

    def cut_longest(must: bool) -> bool:
        cuttable = [number for number, one in enumerate(kept) if one.must is must and lengths[number] > 1]
        if cuttable:
            lengths[max(cuttable, key=lambda number: lengths[number])] -= 1
        return bool(cuttable)

    def drop_last() -> bool:
        number = max((number for number, one in enumerate(kept) if not one.must), default=None)
        if number is not None:
            del kept[number], lengths[number]
        return number is not None

    while sum(lengths) + sum(bool(one.title) for one in kept) > height:
        if not (cut_longest(must=False) or drop_last() or cut_longest(must=True)):
            break
    lines: list[str] = []
    for one, length in zip(kept, lengths, strict=True):
        rest = len(one.lines) - length + 1
        shortened = [*one.lines[: length - 1], f"  … {rest} more"] if rest > 1 else one.lines
        lines += ([one.title] if one.title else []) + shortened
    return [_cut(safe_for_terminal(line), width) for line in lines[:height]]


def lag_ms(link: PeerLink) -> float | None:
    return None if link.lag_seconds is None else round(link.lag_seconds * 1e3, 1)


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: max(0, width - 1)] + "…"


def _owed(status: Status) -> list[str]:
    names = {host.host_id: host.name for host in status.hosts}
    rows = [
        (
            _age(turn.age_seconds),
            "queued" if turn.host_id is None else "running",
            f"attempt {turn.attempt}",
            turn.conversation_id,
            turn.message_id or turn.turn_id,
            "" if turn.host_id is None else f"on {names.get(turn.host_id, turn.host_id[:SHOWN_ID])}",
        )
        for turn in status.owed
    ]
    return aligned(rows, right=frozenset({0}))


def _inside(house: Json) -> list[Section]:
    """Of each host that could be asked: what its turns do, its tree, actors with what waits for them, and workers."""
    shown: list[Section] = []
    for host in house.get("hosts", []):
        name = f"{host.get('name') or 'this organization'}:"
        if turns := host.get("turns", []):
            stands = ", standing still: its lease is not renewed" if host.get("frozen") else ""
            title = f"{name} running turns: {host.get('running', len(turns))}{stands}"
            shown.append(Section(title, aligned([_turn(one) for one in turns], right=frozenset({0}))))
        if host.get("tree", {}).get("name"):
            shown.append(Section(f"{name} tree", _tree(host["tree"], 1)))
        workers, actors = host.get("workers", []), host.get("actors", [])
        if workers or host.get("idlePlaces"):
            title = f"{name} workers: {host.get('workersInAll', len(workers))}, idle: {host.get('idleWorkers', 0)}"
            if host.get("idlePlaces"):
                title += f", idle places on other machines: {host['idlePlaces']}"
            shown.append(Section(title, aligned([_worker(one) for one in workers], right=frozenset({2, 3, 4}))))
        if actors:
            rows = [
                (one["conversationId"], str(one["waiting"]), "waiting", "running" if one["running"] else "idle")
                for one in actors
            ]
            title = f"{name} actors: {host.get('activeActors', len(actors))}"
            if host.get("activeActors", 0) > len(actors):
                title += f", of which {len(actors)} are shown"
            shown.append(Section(title, aligned(rows, right=frozenset({1}))))
    return shown


def _turn(turn: Json) -> tuple[str, ...]:
    """What it is doing, and the clock that runs out first with the code that then ends the turn.

    The heartbeats' comes last: it is wound up again every few seconds, and says nothing while it is.
    """
    clock = min(turn["clocks"], key=lambda one: (one["code"] == _HEARTBEATS, one["leftSeconds"]), default=None)
    return (
        _age(turn["ageSeconds"]),
        turn["phase"],
        turn["conversationId"],
        turn["doing"] or (f"{turn['textLength']} characters" if turn["textLength"] else "no output yet"),
        "" if clock is None else f"{clock['code']} in {_age(clock['leftSeconds'])}",
    )


def _tree(node: Json, depth: int) -> list[str]:
    restarts = f", restarted {node['restarts']} times" if node.get("restarts") else ""
    lines = [f"{'  ' * depth}{node['name']}  {node['state']}{restarts}"]
    for child in node.get("children", []):
        lines += _tree(child, depth + 1)
    return lines


def _worker(worker: Json) -> tuple[str, ...]:
    memory = worker.get("memoryBytes")
    return (
        worker["worker"],
        worker["state"],
        "" if worker.get("pid") is None else str(worker["pid"]),
        "" if memory is None else f"{memory / _MEBIBYTE:.0f} MiB",
        _age(worker["ageSeconds"]),
        worker["conversationId"],
        "" if worker.get("machine") is None else f"on {worker['machine'] or 'no machine yet'}",
    )


def _age(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))


def _row(host: Host) -> tuple[str, ...]:
    return (
        host.name,
        host.host_id[:SHOWN_ID],
        host.state.value,
        f"{host.expires_in_seconds:.1f} s" if host.expires_in_seconds > 0 else "expired",
        str(host.leases),
        str(host.epochs - host.leases),
        str(host.running),
        str(host.queued),
        str(timedelta(seconds=round(host.age_seconds))),
        host.version,
        f"{host.links.up}/{host.links.up + host.links.down}",
        host.link_url or "-",
    )


def _links(hosts: list[Host]) -> list[tuple[str, ...]]:
    """Of those that live: what a dead one wrote last says nothing."""
    live = [host for host in hosts if host.state is not HostState.DEAD and host.expires_in_seconds > 0]
    found = [(host, link) for host in live for link in host.links.worst]
    found.sort(key=lambda pair: (pair[1].up, -(pair[1].lag_seconds or 0)))
    return [
        (
            host.host_id[:SHOWN_ID],
            link.host_id[:SHOWN_ID],
            "up" if link.up else "down",
            "-" if link.lag_seconds is None else f"{lag_ms(link):.1f} ms",
        )
        for host, link in found
    ]

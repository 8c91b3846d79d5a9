"""What an operator does to an installation that runs: reload, slow stops, boots, more edges, backup and restore."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import psycopg
import pytest
import trio

from lobu_actors.store.migrate import known_migrations
from tests.system.audit import broken_promises, turn_of
from tests.system.sse_client import Client
from tests.systemd.harness import Failed, Machine
from tests.systemd.installed import (
    CONFIG,
    EDGES,
    EVERY,
    KEY,
    LOBU,
    POSTGRES,
    SPAWNER,
    SUPERVISOR,
    URL,
    Lobu,
    eventually,
    installed,
)
from tests.systemd.test_units import ENDLESS, Reader, words

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
async def lobu(off: Machine) -> AsyncIterator[Lobu]:
    async with installed(off) as made:
        yield made


async def _reload(lobu: Lobu, config: str, status: str) -> None:
    """`systemctl reload` comes back when the signal was sent; the status line says when it was done."""
    units = (SUPERVISOR, *EDGES)
    said = {unit: (await lobu.machine.journal(unit)).count("read again") for unit in units}
    lobu.machine.path("/etc/lobu/lobu.toml").write_text(config)
    await lobu.machine.run("systemctl", "reload", "lobu.target")
    for unit in units:

        async def done(unit: str = unit) -> bool:
            again = (await lobu.machine.journal(unit)).count("read again") > said[unit]
            return again and status in await lobu.machine.show(unit, "StatusText")

        await eventually(done, f"{unit} has read its configuration again")
        assert await lobu.machine.show(unit, "ActiveState") == "active"


async def test_a_reload_changes_what_begins_and_restarts_nothing(lobu: Lobu) -> None:
    pids = [await lobu.pid(unit) for unit in (SUPERVISOR, *EDGES)]
    talk = await lobu.client.open()
    assert (await talk.ask("before hushhush")).event == "complete"
    assert (await talk.ask(f"print {KEY}")).event == "complete", "its worker tells everybody a secret"
    await _reload(lobu, CONFIG + "[agents.deadlines]\nturn_seconds = 1\n", "serves")
    assert (await talk.ask("stream 200 30")).data["errorCode"] == "TURN_TIMEOUT"
    await _reload(lobu, CONFIG.replace("[[agents]]", "[[agent]]"), "was not read again: ")
    assert (await talk.ask("still here")).event == "complete"
    assert [await lobu.pid(unit) for unit in (SUPERVISOR, *EDGES)] == pids
    await _check_journal(lobu)


async def _check_journal(lobu: Lobu) -> None:
    """A level is the line's priority, the line is JSON, no field of the journal holds a secret or what was written."""
    secrets = [path.read_text().strip() for path in lobu.machine.path("/etc/lobu/credentials").iterdir()]
    secrets += ["hushhush", *(part.rpartition(":")[2] for secret in secrets for part in secret.split(","))]
    assert KEY in secrets
    for unit in EVERY:
        said = await lobu.machine.run("journalctl", "--no-pager", "--output=json", "--unit", unit)
        entries = [json.loads(line) for line in said.splitlines()]
        assert entries
        assert [(entry, secret) for entry in entries for secret in secrets if secret in json.dumps(entry)] == []
        if unit not in (SUPERVISOR, *EDGES):
            continue
        ours = [json.loads(entry["MESSAGE"]) for entry in entries if entry["_TRANSPORT"] == "stdout"]
        priorities = [entry["PRIORITY"] for entry in entries if entry["_TRANSPORT"] == "stdout"]
        assert all({"event", "level", "timestamp"} <= set(event) for event in ours)
        assert {(event["level"], priority) for event, priority in zip(ours, priorities, strict=True)} <= {
            ("info", "6"), ("warning", "4"), ("error", "3"),
        }  # fmt: skip
        found = {(event["event"], event["level"]) for event in ours}
        assert ("configuration read again", "info") in found
        assert ("configuration not read again, the former one stays", "error") in found
        if unit == SUPERVISOR:
            assert "lobu_[hidden]" in json.dumps(ours)


async def test_a_drain_gets_the_time_that_it_asks_for(lobu: Lobu) -> None:
    """Without EXTEND_TIMEOUT_USEC the stop would be ended by force after 5 s."""
    await _drop_in(lobu, SUPERVISOR, "[Service]\nTimeoutStopSec=5\n")
    async with trio.open_nursery() as nursery:
        reader = Reader(await lobu.client.open(), nursery)
        message_id = await reader.conversation.send("stream 250 30")  # 7.5 s and more, of a grace of 15
        await reader.grows(message_id)
        await lobu.machine.run("systemctl", "stop", SUPERVISOR)
        nursery.cancel_scope.cancel()
    assert await lobu.machine.show(SUPERVISOR, "Result") == "success"
    assert await lobu.machine.show(SUPERVISOR, "ExecMainStatus") == "0"
    assert turn_of(lobu.database_url, message_id) == ("completed", 1, 0)


async def test_edges_start_one_after_the_other(lobu: Lobu) -> None:
    await lobu.machine.reboot()
    await lobu.ready()
    ready = [int(await lobu.machine.show(unit, "ActiveEnterTimestampMonotonic")) for unit in EDGES]
    begun = [int(await lobu.machine.show(unit, "InactiveExitTimestampMonotonic")) for unit in EDGES]
    assert ready[0] <= begun[1], "the second one began when the first one was ready"


@pytest.mark.slow
async def test_a_rollout_brings_the_number_of_instances_that_is_installed(lobu: Lobu) -> None:
    third = "lobu-edge@3.service"
    await lobu.install("--instances", "3")
    said = await lobu.machine.run(LOBU, "rollout", "run")
    assert "3/4 lobu-edge@3.service is ready" in said
    await lobu.install("--instances", "1")
    said = await lobu.machine.run(LOBU, "rollout", "run")
    assert "2/2 lobu-supervisor.service is ready" in said
    for unit in (EDGES[1], third):
        await lobu.state(unit, "inactive")
    assert (await (await lobu.client.open()).ask("one is enough")).event == "complete"


@pytest.mark.slow
async def test_a_rollout_that_drains_brings_a_new_spawner_too(lobu: Lobu) -> None:
    units = (*EDGES, SPAWNER, SUPERVISOR)
    talk = await lobu.client.open()
    assert (await talk.ask("before")).event == "complete"
    before = [await lobu.pid(unit) for unit in units]
    message_id = await talk.send("stream 100 30")
    said = await lobu.machine.run(LOBU, "rollout", "run", "--drain")
    assert "lobu-supervisor.service has handed everything over" in said
    assert "4/4 lobu-supervisor.service is ready" in said
    assert not set(before) & {await lobu.pid(unit) for unit in units}
    assert (await talk.terminal_of(message_id)).event == "complete"
    assert turn_of(lobu.database_url, message_id) == ("completed", 1, 0), "within the grace of the drain"
    assert broken_promises(lobu.database_url) == []


async def test_a_sandbox_holds_under_the_unit_and_each_worker_has_a_group_of_its_own(off: Machine) -> None:
    config = CONFIG.replace("zygote = true", 'sandbox = "bwrap"')
    async with installed(off, config) as lobu:
        talk = await lobu.client.open()
        answer = await talk.ask("in a sandbox")
        assert answer.event == "complete", (answer.data, await off.journal(SUPERVISOR), await off.journal(SPAWNER))
        assert "worker.refused" not in await lobu.machine.journal(SUPERVISOR)
        groups = [path for path in off.path("/sys/fs/cgroup").rglob("worker-*") if SPAWNER in str(path)]
        assert [bool((group / "cgroup.procs").read_text()) for group in groups] == [True]


@pytest.mark.slow
async def test_an_installation_that_its_user_cannot_reach_is_refused_in_one_sentence(lobu: Lobu) -> None:
    await lobu.machine.run("chmod", "0700", LOBU.parent)
    with pytest.raises(Failed) as failed:
        await lobu.install()
    said = str(failed.value).strip().splitlines()
    assert len(said) == 2, said  # what was run, and what it said
    assert f"the user lobu cannot get into {LOBU.parent}" in said[1]


async def test_backup_and_restore_as_written_down(lobu: Lobu) -> None:
    machine = lobu.machine
    talk = await lobu.client.open()
    kept = await talk.send("before the backup")
    assert (await talk.terminal_of(kept)).event == "complete"
    await machine.run("systemctl", "stop", "lobu*")
    await machine.run("cp", "-a", "/var/lib/lobu/.lobu/pgdata", "/etc/lobu", "/root")
    await machine.run("systemctl", "start", "lobu.target")
    await lobu.ready()
    lost = await talk.send("after the backup")
    assert (await talk.terminal_of(lost)).event == "complete"
    await machine.run("systemctl", "stop", "lobu*")
    await machine.run("rm", "-r", "/var/lib/lobu/.lobu/pgdata", "/etc/lobu")
    await machine.run("cp", "-a", "/root/pgdata", "/var/lib/lobu/.lobu/pgdata")
    await machine.run("cp", "-a", "/root/lobu", "/etc/lobu")
    await machine.run("systemctl", "start", "lobu.target")
    await lobu.ready()
    assert turn_of(lobu.database_url, kept) == ("completed", 1, 0)
    assert (await talk.ask("it knows its keys")).event == "complete"
    assert broken_promises(lobu.database_url) == []
    await machine.run("sh", "-c", f"DATABASE_URL=$(cat /etc/lobu/credentials/database_url) {LOBU} audit")


async def test_up_and_back_across_a_schema_change(lobu: Lobu) -> None:
    """The commands as written down; a turn runs through all of it."""
    machine = lobu.machine
    newest = known_migrations()[-1]
    undone = [known_migrations()[number - 1] for number in (22, 23)]  # the checks, and that they were validated
    async with trio.open_nursery() as nursery:
        reader = Reader(await lobu.client.open(), nursery)
        message_id = await reader.conversation.send(f"stream {ENDLESS} 30")
        await reader.grows(message_id)
        with psycopg.connect(lobu.database_url, autocommit=True) as connection:  # the schema of the release before
            connection.execute("ALTER TABLE turn DROP CONSTRAINT turn_on_busy")
            modes = "'enqueue', 'merge', 'steer', 'interrupt', 'reject'"
            connection.execute(f"ALTER TABLE turn ADD CONSTRAINT turn_on_busy CHECK (on_busy IN ({modes}))")
            connection.execute("DELETE FROM schema_migration WHERE name = ANY (%s)", ([one.name for one in undone],))
        before = [await lobu.pid(unit) for unit in (*EDGES, SUPERVISOR)]
        with pytest.raises(Failed, match=f"the database lacks {undone[0].name}, {undone[1].name}; run `lobu migrate`"):
            await machine.run(LOBU, "rollout", "run")
        assert [await lobu.pid(unit) for unit in (*EDGES, SUPERVISOR)] == before
        await machine.run("systemctl", "restart", POSTGRES)
        await machine.run(LOBU, "rollout", "run")
        assert not set(before) & {await lobu.pid(unit) for unit in (*EDGES, SUPERVISOR)}
        await reader.grows(message_id)
        with psycopg.connect(lobu.database_url, autocommit=True) as connection:  # a later release was here
            connection.execute("CREATE TABLE later (x integer)")
            note = (newest.version + 1, "later", newest.version)
            connection.execute("INSERT INTO schema_migration (version, name, oldest) VALUES (%s, %s, %s)", note)
        await machine.run("systemctl", "restart", POSTGRES)
        await machine.run(LOBU, "rollout", "run")
        await reader.grows(message_id)
        assert words(ENDLESS).startswith(await reader.stop(message_id))
        nursery.cancel_scope.cancel()
    assert turn_of(lobu.database_url, message_id) == ("cancelled", 1, 0)
    assert broken_promises(lobu.database_url) == []


async def _drop_in(lobu: Lobu, unit: str, text: str) -> None:
    folder = lobu.machine.path(f"/etc/systemd/system/{unit}.d")
    folder.mkdir(exist_ok=True)
    (folder / "test.conf").write_text(text)
    await lobu.machine.run("systemctl", "daemon-reload")


@pytest.mark.slow
async def test_keys_are_replaced_as_written_down(lobu: Lobu) -> None:
    """A turn runs through all of it; at no moment is a link between the parts refused for its key."""
    folder = lobu.machine.path("/etc/lobu/credentials")
    jwt_keys, admin_key = folder / "jwt_keys", folder / "admin_key"
    old, new = jwt_keys.read_text().strip(), "new:" + "n" * 48
    token = (await lobu.client.call("POST", "/api/v1/agents", {})).body["token"]
    holder = Client(URL, token)
    async with trio.open_nursery() as nursery:
        reader = Reader(await lobu.client.open(), nursery)
        message_id = await reader.conversation.send(f"stream {ENDLESS} 30")
        await reader.grows(message_id)
        for keys, taken in ((f"{old},{new}", 200), (f"{new},{old}", 200), (new, 401)):
            jwt_keys.write_text(f"{keys}\n")
            await lobu.machine.run(LOBU, "rollout", "run")
            await reader.grows(message_id)
            assert (await holder.call("GET", "/api/v1/session")).status == taken
        admin_key.write_text("lobu_another-admin-key\n")
        await lobu.machine.run(LOBU, "rollout", "run")
        await reader.grows(message_id)  # so its edge has a link again, by which the cancel goes
        await reader.stop(message_id)
        nursery.cancel_scope.cancel()
    said = await lobu.machine.journal(SUPERVISOR, lines=2000)
    assert said.count("link accepted") > len(EDGES)
    assert "bad token" not in said
    given = "DATABASE_URL=$(cat /etc/lobu/credentials/database_url)"
    first, second = (await lobu.machine.run("sh", "-c", f"{given} {LOBU} token list")).splitlines()
    assert "valid" in first
    assert "valid" in second
    await lobu.machine.run("sh", "-c", f"{given} {LOBU} token revoke {first.split()[0]}")

    async def refused() -> bool:
        return (await lobu.client.call("GET", "/api/v1/session")).status == 401

    await eventually(refused, "the old key opens nothing")
    assert (await Client(URL, "lobu_another-admin-key").call("GET", "/api/v1/session")).status == 200


async def test_secrets_of_workers_are_a_file_beside_the_configuration(lobu: Lobu) -> None:
    machine = lobu.machine
    await machine.run("install", "-m", "0640", "-g", "lobu", "/dev/null", "/etc/lobu/.env")
    machine.path("/etc/lobu/.env").write_text("WORKER_ENV_PROVIDER_KEY=quite-secret\n")
    await _reload(lobu, CONFIG, "serves")
    talk = await lobu.client.open()
    assert (await talk.ask("hello")).event == "complete"
    having = "grep -l PROVIDER_KEY=quite-secret /proc/[0-9]*/environ || true"  # some may have ended meanwhile
    assert await machine.run("sh", "-c", having)

"""Fixtures for every test: one embedded server a run, one database cloned from a migrated template a test; and the end
of tests that hang.

Owns the server's life. The server is started when the first test asks for it.
"""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from types import FrameType

import attrs
import hypothesis
import psycopg
import pytest
import pytest_timeout
import trio

from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.store.embedded import EmbeddedServer
from lobu_actors.store.migrate import migrate
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.protocol import Store

TEMPLATE = "lobu_template"

# Tests kill processes, not machines: what the kernel has is safe, and the tests are twice as fast.
TEST_SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "200"}

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("lobu", deadline=None)
hypothesis.settings.load_profile("lobu")

UNWIND_SECONDS = 60.0  # to kill processes and take databases down
_hung = pytest.StashKey[float]()

# Folders.
LONG_ONES = ("browser", "systemd", "system", "cluster", "benchmarks", "singletons", "workers")


def pytest_timeout_set_timer(item: pytest.Item, settings: pytest_timeout.Settings) -> bool:
    """A test that takes too long gets what Ctrl-C sends: trio unwinds it in order, so nothing that it started stays.

    What does not even end by that ends the whole run, with the stacks of all threads.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if pytest_timeout.is_debugging():
            return
        if _hung in item.stash:
            pytest_timeout.timeout_timer(item, settings)
        item.stash[_hung] = settings.timeout
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, settings.timeout, UNWIND_SECONDS)
    return True


def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    signal.setitimer(signal.ITIMER_REAL, 0)
    return True


def _failing_when_hung(item: pytest.Item) -> Generator[None, object, object]:
    """Turns the interrupt into this test's failure; the next test runs."""
    try:
        return (yield)
    except (KeyboardInterrupt, BaseExceptionGroup) as error:
        if _hung not in item.stash:
            raise
        raise TimeoutError(f"the test took longer than {item.stash[_hung]:g} s") from error


pytest_runtest_setup = pytest.hookimpl(_failing_when_hung, wrapper=True, tryfirst=True, specname="pytest_runtest_setup")
pytest_runtest_call = pytest.hookimpl(_failing_when_hung, wrapper=True, tryfirst=True, specname="pytest_runtest_call")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Side by side, what takes long begins first, so that no process is left alone with it at the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: next((n for n, part in enumerate(LONG_ONES) if part in item.path.parts), 9))


def pytest_sessionstart() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    """Five thousand tests stay; the collector would look through them all again and again, here and in every test."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def database_server() -> Iterator[EmbeddedServer]:
    """The run's server; tests share it and must not stop it."""
    folder = make_folder()
    server = EmbeddedServer(folder, settings=TEST_SETTINGS)
    trio.run(server.start)
    try:
        yield server
    finally:
        trio.run(server.stop, "immediate")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def server_folder() -> Iterator[Path]:
    """A folder for a server of the test's own. Not `tmp_path`: any other run of pytest closes its parent to others."""
    folder = make_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def make_folder() -> Path:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="lobu-test-", dir=memory))


@pytest.fixture(scope="session")
def template_database(database_server: EmbeddedServer) -> str:
    """Name of an empty database whose schema is migrated."""
    admin(database_server.url, f"CREATE DATABASE {TEMPLATE}")
    trio.run(migrate, url_of(database_server, TEMPLATE))
    return TEMPLATE


_numbers = itertools.count(1)


@pytest.fixture
def database_url(database_server: EmbeddedServer, template_database: str) -> Iterator[str]:
    """A fresh migrated database, dropped afterwards."""
    name = f"lobu_test_{next(_numbers)}"
    admin(database_server.url, f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY file_copy")
    yield url_of(database_server, name)
    admin(database_server.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    """A PostgresStore on a fresh database."""
    store = PostgresStore.connect(database_url)
    yield store
    store.close()


def admin(url: str, statement: str) -> list[tuple[object, ...]]:
    """Run one statement outside of everything that is tested, and give its rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)  # type: ignore[call-overload]
        return cursor.fetchall() if cursor.description else []


def url_of(server: EmbeddedServer, database: str) -> str:
    return server.url.replace("/postgres?", f"/{database}?")


@attrs.frozen
class Scene:
    """An organization with one open conversation."""

    organization_id: str
    ref: ConversationRef


@pytest.fixture
def make_scene() -> Callable[..., object]:
    """`await make_scene(store)` makes an organization (`acme` unless named otherwise) and one conversation in it."""
    return open_scene


async def open_scene(store: Store, organization_id: str = "acme", user_id: str = "ann") -> Scene:
    await store.ensure_organization(organization_id)
    ref = ConversationRef(organization_id, "echo", f"echo_{user_id}_{organization_id}_{new_id()}")
    await store.open_conversation(ref, user_id)
    return Scene(organization_id, ref)

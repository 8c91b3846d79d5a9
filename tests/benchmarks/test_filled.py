"""What fills a store for `lobu bench filled` is what turns leave, by the audit; and a start ends what is owed."""

from __future__ import annotations

import os
import subprocess

import psycopg
import pytest

from benchmarks.filled import COPIED, House
from benchmarks.server import own_database, own_server
from tests.benchmarks.lobu_bench import LOBU


@pytest.mark.timeout(120)
def test_the_rows_are_as_real_ones_and_what_is_owed_is_done() -> None:
    with own_database() as database, own_server(database_url=database) as server:
        house = House(50, 3, server)
        house.fill()
        with psycopg.connect(database) as connection:
            for table in COPIED:
                [(count,)] = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
                assert count >= 51, table
        house.start_again()
        assert len(house.start) == len(house.done) == 1
        with psycopg.connect(database) as connection:
            ended = "SELECT count(*) FROM turn WHERE content = 'hello' AND status = 'completed'"
            [(count,)] = connection.execute(ended).fetchall()
        assert count == 1 + 50 + 3
        environment = {**os.environ, "DATABASE_URL": database}
        done = subprocess.run([*LOBU, "audit"], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

"""A server to measure: a `lobu run` of its own in a temporary folder, with the echo worker and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

START_SECONDS = 60.0
STOP_SECONDS = 40.0
# One client sends all it can, and what was written is counted at the end.
CONFIG = """
[limits]
requests_per_second = 0
snapshot_max_segments = 1000000
retention_interval_seconds = 86400
[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
[[agents]]
id = "echo"
worker = "echo"
default = true
[workers.forked]
command = ["python", "-m", "lobu_actors.agents.echo"]
zygote = true
[[agents]]
id = "forked"
worker = "forked"
"""
FORKED_AGENT = "forked"


@attrs.frozen
class Server:
    port: int
    key: str
    folder: Path

    def database_url(self) -> str:
        """The embedded server's, for measuring bare commits on the same one."""
        from lobu_actors.store.embedded import running_url

        url = running_url(self.folder)
        if url is None:
            raise RuntimeError("the measured server's database is not running")
        return url

    def worker_pids(self) -> list[int]:
        """The living worker processes of this server, found by the workspace in their environment."""
        mark = f"WORKSPACE_DIR={self.folder}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    environment = (entry / "environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                if any(variable.startswith(mark) for variable in environment):
                    found.append(int(entry.name))
        return found


@contextmanager
def own_server() -> Iterator[Server]:
    """Started, ready, and stopped in order at the end."""
    with tempfile.TemporaryDirectory(prefix="lobu-bench-") as name:
        folder = Path(name).resolve()
        log = folder / "log"
        (folder / "lobu.toml").write_text(CONFIG)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("LOBU_", "DATABASE_"))}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "supervisor.cli.main", "run", "--port", "0", "--data-dir", name],
                stdout=output,
                stderr=output,
                cwd=name,
                env={**environment, "PYTHONPATH": str(Path(__file__).parents[1])},
            )
        try:
            yield _wait_until_ready(process, folder, log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def _wait_until_ready(process: subprocess.Popen[bytes], folder: Path, log: Path) -> Server:
    url_file, key_file = folder / ".lobu" / "gateway_url", folder / ".lobu" / "admin_key"
    deadline = time.monotonic() + START_SECONDS
    while not url_file.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server to measure did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)
    port = int(url_file.read_text().strip().rpartition(":")[2])
    return Server(port, key_file.read_text().strip(), folder)

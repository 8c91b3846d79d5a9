"""A real systemd in namespaces of its own, on an overlay of this machine's root: booted, cut off, cleaned up.

`Machine` owns one overlay on disk, which outlives a reboot as a disk does, and at most one running systemd on it. That
systemd has its own processes, mounts, cgroups, network, /tmp and /run; what it writes goes to the overlay. It needs
root. Everything ends with the process that booted it, even one that is killed: the kernel kills the init of the
namespace with its parent, and the mounts are the namespace's. What that leaves on disk and in the cgroup tree is
removed by the next `Machine`, which knows it by a lock that nobody holds.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import trio

from tests.system.lobu_process import until

SYSTEMD = Path("/lib/systemd/systemd")
TOOLS = ("unshare", "nsenter", "setpriv", "mount", "systemctl", "journalctl", "pivot_root")
FOLDER = Path(__file__).resolve().parents[2] / "build" / "systemd"
BOOT_SECONDS = 60.0
COMMAND_SECONDS = 120.0
END_SECONDS = 60.0
POLL_SECONDS = 0.05
_CLONE_NEWNET = 0x40000000
_PREFIX = "machine-"

# `sh SCRIPT folder cgroup`. Its first step puts it into its own cgroup, which becomes the root of the new namespace.
_ENTER = 'echo $$ > "$2/cgroup.procs" && exec setpriv --pdeathsig KILL unshare --pid --fork --mount --uts --ipc \
--cgroup --net --kill-child=KILL sh -c "$3" boot "$1"'
_BOOT = """
set -e
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs run
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm  # shared memory is by name: neither side may meet, or remove, the other's
hostname lobu-test
export container=lobu-test
mkdir -p .below
pivot_root . .below  # not chroot: in one, no unit could have a user namespace
umount -l .below
mount --make-rshared /  # as systemd does by itself on a machine, not in a container; credentials need it
exec /lib/systemd/systemd --system --unit=multi-user.target
"""
# Of the machine below: what it has enabled is none of a test's business.
_HIDDEN = ("etc/systemd/system", "etc/init.d")
# What comes enabled with systemd, and would wait for devices or change what is not the namespace's own.
_MASKED = (
    "console-getty.service", "dev-hugepages.mount", "getty.target", "proc-sys-fs-binfmt_misc.automount",
    "remote-fs.target", "sys-fs-fuse-connections.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
    "systemd-logind.service", "systemd-udevd.service",
)  # fmt: skip


def why_not() -> str | None:
    """One line that says why this machine cannot boot a systemd; None when it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "booting a systemd of our own needs root on Linux"
    if not SYSTEMD.exists():
        return "there is no systemd here (apt-get install systemd)"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"booting a systemd of our own needs {', '.join(missing)}"
    if _cgroup2() is None:
        return "there is no cgroup v2 hierarchy that can be written to"
    probe = ["unshare", "--pid", "--fork", "--mount", "--cgroup", "--net", "--kill-child", "true"]
    done = subprocess.run(probe, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    return None if done.returncode == 0 else f"namespaces cannot be made here: {done.stderr.strip()}"


class Failed(AssertionError):
    """A command inside ended with another status than 0."""


class Machine:
    """`boot` may be called again after `reboot`, `halt` or `power_off`: the disk is the same."""

    def __init__(self, folder: Path, cgroup: Path) -> None:
        self._folder = folder
        self._cgroup = cgroup
        self._outer: subprocess.Popen[bytes] | None = None
        self._init = 0

    @property
    def init(self) -> int:
        """The pid of this systemd, as seen from outside."""
        assert self._init, "the machine is off"
        return self._init

    def path(self, inside: str) -> Path:
        """A file of the running machine, to be read and written from outside; /run and /tmp too."""
        return Path(f"/proc/{self.init}/root") / inside.lstrip("/")

    def disk(self, inside: str) -> Path:
        """A file that is to be there before a boot."""
        found = self._folder / "upper" / inside.lstrip("/")
        found.parent.mkdir(parents=True, exist_ok=True)
        return found

    # --- its life

    async def boot(self) -> None:
        """Start-up is finished when it returns. Raises AssertionError when a unit failed, or it takes too long."""
        assert self._outer is None, "the machine is on already"
        self._outer = self._launch()
        state = ""
        with trio.move_on_after(BOOT_SECONDS) as scope:
            while not self._init:
                self._init = self._find_init()
                await trio.sleep(POLL_SECONDS)
            while state in ("", "offline", "initializing", "starting"):
                state = await self.ask("systemctl", "is-system-running")
        if scope.cancelled_caught:
            raise AssertionError(f"no systemd within {BOOT_SECONDS:g} s\n{self._console()}")
        if state != "running":
            failed = await self.ask("systemctl", "--failed", "--no-legend", "--plain")
            raise AssertionError(f"the machine is {state}: {failed}\n{await self.journal()}")

    async def reboot(self) -> None:
        """An ordered shutdown, then a boot."""
        await self.halt()
        await self.boot()

    async def halt(self, seconds: float = 120.0) -> None:
        """An ordered shutdown: every unit is stopped, and only then the machine is off."""
        await self.ask("systemctl", "--no-block", "poweroff")
        try:
            await until(lambda: self._outer is None or self._outer.poll() is not None, "the machine is down", seconds)
        finally:
            self.power_off()

    def power_off(self) -> None:
        """As when the plug is pulled: nothing inside is told. What was written is on the disk."""
        outer, self._outer, self._init = self._outer, None, 0
        if outer is not None:
            outer.kill()
            _end_cgroup(self._cgroup)
            outer.wait()

    # --- talking to it

    def command(self, *words: str | os.PathLike[str]) -> list[str]:
        """What runs `words` inside, as root, with the environment of a service."""
        enter = [
            "nsenter",
            "-t",
            str(self.init),
            "-a",
            "-r",
            "-w",
            "env",
            "-i",
            "LANG=C.UTF-8",
            "PATH=/usr/bin:/usr/sbin",
        ]
        return [*enter, "SYSTEMD_PAGER=", *map(str, words)]

    async def run(self, *words: str | os.PathLike[str], seconds: float = COMMAND_SECONDS) -> str:
        """Standard output without the blanks around it. Raises Failed with what it said."""
        code, out, err = await self._run(words, seconds)
        if code != 0:
            raise Failed(f"{' '.join(map(str, words))} ended with {code}\n{out}{err}")
        return out.strip()

    async def ask(self, *words: str) -> str:
        """Standard output, whatever the status."""
        return (await self._run(words, COMMAND_SECONDS))[1].strip()

    async def journal(self, unit: str | None = None, lines: int = 200) -> str:
        """What was said so far, by what has just ended too: the journal is asked to read all that it was sent."""
        await self.run("journalctl", "--sync")
        words = ["journalctl", "--no-pager", "--output=short-precise", f"--lines={lines}"]
        return await self.ask(*words, *(["--unit", unit] if unit else []))

    async def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return await self.run("systemctl", "show", "--value", "--property", name, unit)

    @contextmanager
    def network(self) -> Iterator[None]:
        """Sockets that the calling thread opens meanwhile are the machine's: 127.0.0.1 is its own."""
        with open("/proc/thread-self/ns/net") as before, open(f"/proc/{self.init}/ns/net") as inside:
            _enter(inside.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    async def _run(self, words: tuple[str | os.PathLike[str], ...], seconds: float) -> tuple[int, str, str]:
        with trio.move_on_after(seconds) as scope:
            done = await trio.run_process(
                self.command(*words), stdin=subprocess.DEVNULL, capture_stdout=True, capture_stderr=True, check=False
            )
        if scope.cancelled_caught:
            raise AssertionError(f"{' '.join(map(str, words))} took longer than {seconds:g} s")
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")

    def _launch(self) -> subprocess.Popen[bytes]:
        """Not through trio: it starts processes in threads, and the kernel's parent-death signal follows the thread."""
        with (self._folder / "console.log").open("ab") as console:
            return subprocess.Popen(
                ["sh", "-c", _ENTER, "enter", self._folder, self._cgroup, _BOOT],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )

    def _find_init(self) -> int:
        """The child of `unshare`, once it is systemd; 0 before. Raises AssertionError when it ended."""
        assert self._outer is not None
        if self._outer.poll() is not None:
            raise AssertionError(f"the machine did not come up\n{self._console()}")
        with suppress(OSError, IndexError, ValueError):
            child = int(Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()[0])
            if os.path.realpath(f"/proc/{child}/exe").endswith("/systemd/systemd"):
                return child
        return 0

    def _console(self) -> str:
        return (self._folder / "console.log").read_text(errors="replace")[-4000:]


@asynccontextmanager
async def machine() -> AsyncIterator[Machine]:
    """A machine that is off, with nothing on its disk but this machine's root. Nothing of it is left at the end."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    _remove_left_over()
    folder = FOLDER / f"{_PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
    cgroup = (_cgroup2() or Path()) / f"lobu-{folder.name}"
    folder.mkdir(mode=0o755)
    lock = _lock(folder)
    assert lock is not None
    try:
        for name in ("upper", "work", "root"):
            (folder / name).mkdir()
        cgroup.mkdir()
        made = Machine(folder, cgroup)
        for place in _HIDDEN:
            made.disk(f"{place}/x")
            os.setxattr(folder / "upper" / place, "trusted.overlay.opaque", b"y")
        for unit in _MASKED:
            made.disk(f"etc/systemd/system/{unit}").symlink_to("/dev/null")
        made.disk("etc/machine-id").write_text("")  # a new one for each boot: journals of two machines must not mix
        made.disk("etc/fstab").write_text("")
        try:
            yield made
        finally:
            made.power_off()
    finally:
        os.close(lock)
        _remove(folder)


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot enter the machine's network")


def _cgroup2() -> Path | None:
    """This process's own place in the cgroup v2 hierarchy, where it may make a cgroup."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    tops = [Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"]
    own = [line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
    if not tops or not own:
        return None
    place = tops[0] / own[0].lstrip("/")
    return place if os.access(place, os.W_OK) else None


def _end_cgroup(cgroup: Path) -> None:
    """SIGKILL to all that is in it, wait until nothing is, and remove what is below it."""
    with suppress(OSError):
        (cgroup / "cgroup.kill").write_text("1")
    with (cgroup / "cgroup.events").open() as events:
        changes = select.poll()
        changes.register(events, select.POLLPRI)
        give_up_at = time.monotonic() + END_SECONDS
        while "populated 1" in events.read() and (left := give_up_at - time.monotonic()) > 0:
            changes.poll(left * 1000)
            events.seek(0)
    for place in sorted((path for path in cgroup.rglob("*") if path.is_dir()), reverse=True):
        place.rmdir()


def _lock(folder: Path) -> int | None:
    """None: its owner lives. The kernel gives the lock back when it does not, however it ended."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_left_over() -> None:
    for folder in FOLDER.glob(f"{_PREFIX}*"):
        if (lock := _lock(folder)) is not None:
            os.close(lock)
            _remove(folder)


def _remove(folder: Path) -> None:
    place = _cgroup2()
    if place is not None and (cgroup := place / f"lobu-{folder.name}").exists():
        _end_cgroup(cgroup)
        cgroup.rmdir()
    shutil.rmtree(folder, ignore_errors=True)

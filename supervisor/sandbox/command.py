"""The command line of a sandbox: what a worker in it sees, and nothing else. Pure, but for `find_system`.

Owns the whole of it: every sandboxed worker and the test at the supervisor's start are started with this one builder.
What is not listed here does not exist inside. Later mounts lie on earlier ones, so the order is part of the meaning.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

RELAY = str(Path(__file__).with_name("relay.py"))
PROXY_PORT = 3128
PROXY_FOLDER = "/run/lobu"  # inside
PROXY_SOCKET = "proxy.sock"
SHARED_MEMORY_BYTES = 64 * 1024 * 1024
MASK_BYTES = 64 * 1024
_USR_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# No secrets, and what programs need to find libraries, names, certificates and the time.
_ETC = (
    "/etc/alternatives", "/etc/ca-certificates", "/etc/group", "/etc/hosts", "/etc/ld.so.cache", "/etc/ld.so.conf",
    "/etc/ld.so.conf.d", "/etc/localtime", "/etc/mime.types", "/etc/nsswitch.conf", "/etc/passwd",
    "/etc/pki/ca-trust/extracted", "/etc/pki/tls/certs", "/etc/protocols", "/etc/services", "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
)  # fmt: skip


class NoSandbox(Exception):
    """This host has no sandbox to offer; the text is one sentence for the operator."""


class System(msgspec.Struct, frozen=True):
    """What of this host sandboxes are made of. `links` are (path, target) of symbolic links; `python` runs `relay` and
    `probe` inside; `own_python` is what a program needs that runs on this process's interpreter."""

    bwrap: str
    prlimit: str | None
    python: str
    own_python: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    read_only: tuple[str, ...]


def find_system() -> System:
    """Looks at this host's folders and programs. Raises NoSandbox."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise NoSandbox("the program bwrap is not installed (package bubblewrap, 0.8 or newer)")
    links = tuple((path, os.readlink(path)) for path in _USR_LINKS if os.path.islink(path))
    folders = [path for path in ("/usr", *_USR_LINKS) if os.path.isdir(path) and not os.path.islink(path)]
    etc = [path for path in _ETC if os.path.exists(path)]
    package = Path(__file__).parents[2] / "lobu_actors"  # without what lies beside it, which may be a data folder
    return System(
        bwrap,
        shutil.which("prlimit"),
        # One of the system's is there in any case, and all users reach it.
        shutil.which("python3", path="/usr/local/bin:/usr/bin") or sys.executable,
        tuple(outermost((sys.prefix, sys.base_prefix, str(package)), beside=folders)),
        links,
        (*folders, *etc),
    )


def outermost(paths: Iterable[str], beside: Iterable[str] = ()) -> list[str]:
    """Without those that lie beneath another of them, or beneath one of `beside`."""
    found: list[str] = []
    for path in sorted({os.path.abspath(path) for path in paths}):
        if not any(path == other or path.startswith(f"{other}/") for other in (*beside, *found)):
            found.append(path)
    return found


class Sandbox(msgspec.Struct, frozen=True):
    """One worker's. `readable` are further paths of the host, `hidden` folders that are empty inside whatever shows
    them; `proxy_folder` is the host's folder with the socket of the way out, None for none. `processes` None: no limit
    of its own, since its user has one."""

    workspace: str
    readable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    temporary_bytes: int = 512 * 1024 * 1024
    proxy_folder: str | None = None
    processes: int | None = None


def command_line(system: System, sandbox: Sandbox, command: Sequence[str]) -> list[str]:
    """`command` in that sandbox."""
    return [
        system.bwrap,
        *("--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
        *("--unshare-cgroup-try", "--hostname", "worker", "--cap-drop", "ALL", "--die-with-parent"),
        *_system_mounts(system),
        *_private_mounts(sandbox),
        *_bound(outermost(sandbox.readable, beside=system.read_only)),
        *_own_mounts(sandbox),
        *("--remount-ro", "/", "--chdir", sandbox.workspace, "--"),
        *_inner(system, sandbox),
        *command,
    ]


def proxy_environment() -> dict[str, str]:
    """What tells programs of the way out. NO_PROXY is empty: even loopback addresses are reached through it."""
    url = f"http://127.0.0.1:{PROXY_PORT}"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return {
        **dict.fromkeys(names, url),
        **{name.lower(): url for name in names},
        "NO_PROXY": "",
        "no_proxy": "",
        "NODE_USE_ENV_PROXY": "1",  # Node looks at the others only then
    }


def _system_mounts(system: System) -> list[str]:
    links = [word for path, target in system.links for word in ("--symlink", target, path)]
    return [*_bound(system.read_only), *links]


def _private_mounts(sandbox: Sandbox) -> list[str]:
    return [
        # Read-only: a process of the host's root may write system settings there even without capabilities.
        *("--proc", "/proc", "--remount-ro", "/proc"),
        *("--dev", "/dev", "--perms", "1777", "--size", str(SHARED_MEMORY_BYTES), "--tmpfs", "/dev/shm"),
        *("--remount-ro", "/dev"),
        *("--perms", "1777", "--size", str(sandbox.temporary_bytes), "--tmpfs", "/tmp"),
        *("--dir", "/var", "--symlink", "../tmp", "/var/tmp", "--dir", "/run"),
    ]


def _own_mounts(sandbox: Sandbox) -> list[str]:
    words: list[str] = []
    for path in sandbox.hidden:
        words += ["--perms", "0755", "--size", str(MASK_BYTES), "--tmpfs", path]
    words += ["--bind", sandbox.workspace, sandbox.workspace]
    for path in sandbox.hidden:
        words += ["--remount-ro", path]
    if sandbox.proxy_folder is not None:
        words += ["--ro-bind", sandbox.proxy_folder, PROXY_FOLDER, *_bound([RELAY])]
    return words


def _inner(system: System, sandbox: Sandbox) -> list[str]:
    words: list[str] = []
    if sandbox.processes is not None and system.prlimit is not None:
        # From within, where only the sandbox's own processes count.
        words += [system.prlimit, f"--nproc={sandbox.processes}:{sandbox.processes}"]
    if sandbox.proxy_folder is not None:
        words += [system.python, "-I", "-S", RELAY, str(PROXY_PORT), f"{PROXY_FOLDER}/{PROXY_SOCKET}", "--"]
    return words


def _bound(paths: Iterable[str]) -> list[str]:
    return [word for path in paths for word in ("--ro-bind", path, path)]

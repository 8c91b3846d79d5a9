"""Which files an installation consists of, and what is in them. Pure: reads the templates that ship, writes nothing."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

import supervisor
from lobu_actors.store.embedded import socket_url
from supervisor.config.keys import new_api_key, new_jwt_keys
from supervisor.config.values import STATE_FOLDER

ETC = Path("/etc/lobu")
UNITS = Path("etc/systemd/system")
SYSUSERS = Path("etc/sysusers.d/lobu.conf")
TMPFILES = Path("etc/tmpfiles.d/lobu.conf")
MARK = (
    "# Written by `lobu systemd install`, which will write it again; changes belong into drop-ins (systemctl edit).\n"
)
# Beside this package, in a checkout and as installed. Not looked up as a module: one of that name may be there.
TEMPLATES = Path(supervisor.__path__[0]).parent / "systemd"
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
_PLACEHOLDER = re.compile(r"@([A-Z_]+)@")
_ALWAYS = (
    "lobu.target",
    "lobu-workers.slice",
    "lobu-spawner.socket",
    "lobu-spawner.service",
    "lobu-supervisor.service",
    "lobu-edge.socket",
    "lobu-edge@.service",
)
_EMBEDDED = "lobu-postgres.service"
MAX_INSTANCES = 64


@attrs.frozen(kw_only=True)
class Installation:
    """`lobu` is the program; `code` the folders that it needs to read. `database_url` None: the embedded server."""

    lobu: Path
    code: tuple[Path, ...]
    listen: str = "127.0.0.1:8787"
    instances: int = 2
    user: str = "lobu"
    data_dir: Path = Path("/var/lib/lobu")
    etc: Path = ETC
    database_url: str | None = attrs.field(default=None, repr=False)

    @property
    def edges(self) -> list[str]:
        return [f"lobu-edge@{number}.service" for number in range(1, self.instances + 1)]

    @property
    def order(self) -> list[File]:
        """Edges start one after the other, each when the one before is ready, and stop the other way round. A template
        cannot name the instance before its own, so each has a line of its own."""
        return [
            File(_order_of(number), f"{MARK}[Unit]\nAfter=lobu-edge@{number - 1}.service\n")
            for number in range(2, self.instances + 1)
        ]

    @property
    def protect_home(self) -> str:
        """Homes are hidden, unless the program itself lies in one."""
        return "read-only" if any(path.is_relative_to(home) for path in self.code for home in HOMES) else "yes"


@attrs.frozen
class File:
    """`path` is relative to the root that is installed into; what is `once` is the operator's once it is there."""

    path: Path
    text: str = attrs.field(repr=False)
    mode: int = 0o644
    once: bool = False


def files_of(installation: Installation) -> list[File]:
    """Everything of an installation, in the order in which it is to be written."""
    values = _values(installation)
    names = [*_ALWAYS, *([_EMBEDDED] if installation.database_url is None else [])]
    etc = installation.etc.relative_to("/")
    embedded = socket_url(installation.data_dir / STATE_FOLDER / "run")
    return [
        File(SYSUSERS, MARK + _rendered("sysusers.conf", values)),
        File(TMPFILES, MARK + _rendered("tmpfiles.conf", values)),
        *(File(UNITS / name, MARK + _rendered(name, values)) for name in names),
        *installation.order,
        File(etc / "lobu.toml", _rendered("lobu.toml", values), once=True),
        File(etc / "lobu.env", _rendered("lobu.env", values), once=True),
        File(etc / "credentials/admin_key", new_api_key() + "\n", 0o600, once=True),
        File(etc / "credentials/jwt_keys", new_jwt_keys() + "\n", 0o600, once=True),
        File(etc / "credentials/database_url", f"{installation.database_url or embedded}\n", 0o600),
    ]


def removable() -> list[Path]:
    """What an uninstall removes: all but what the operator wrote, or may want to keep."""
    orders = (_order_of(number) for number in range(2, MAX_INSTANCES + 1))
    return [SYSUSERS, TMPFILES, *(UNITS / name for name in (*_ALWAYS, _EMBEDDED)), *orders]


def _order_of(number: int) -> Path:
    return UNITS / f"lobu-edge@{number}.service.d" / "lobu-order.conf"


def _values(installation: Installation) -> dict[str, str]:
    return {
        "CONFIG": str(installation.etc / "lobu.toml"),
        "DATA": str(installation.data_dir),
        "EDGES": " ".join(installation.edges),
        "ETC": str(installation.etc),
        "GROUP": installation.user,
        "LISTEN": installation.listen,
        "REACHED": installation.listen.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]"),
        "LOBU": str(installation.lobu),
        "POSTGRES": _EMBEDDED if installation.database_url is None else "",
        "PROTECT_HOME": installation.protect_home,
        "STATE": str(installation.data_dir / STATE_FOLDER),
        "USER": installation.user,
    }


def _rendered(name: str, values: dict[str, str]) -> str:
    text = (TEMPLATES / name).read_text()
    lines = _PLACEHOLDER.sub(lambda found: values[found[1]], text).split("\n")
    return "\n".join(line.rstrip() for line in lines)

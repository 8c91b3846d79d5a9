"""How many files, sockets among them, a process may have open. Must not know what they are for."""

from __future__ import annotations

import resource


def raise_descriptor_limit() -> None:
    """To what the system lets it have: the 1,024 of most shells are for programs that know no more, and the workers of
    one host or its readers are more than that."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

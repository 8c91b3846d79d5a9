"""What a worker finds in its environment: only what is listed here. Pure.

Owns the list. The spawner adds what only it knows: `LOBU_WORKER_FD`, and `LOBU_WORKER_ID`, by which it finds processes
that a worker left behind.
"""

from collections.abc import Mapping
from typing import Literal

SESSION_STORE = "LOBU_SESSION_STORE"
# Fixed, so that a worker starts alike whatever environment its supervisor was started from; WORKER_ENV_* may override.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LANG = "C.UTF-8"


def worker_environment(
    *,
    workspace: str,
    dispatcher_url: str,
    token: str,
    worker_env: Mapping[str, str],
    session_store: Literal["snapshot", "file"] = "snapshot",
) -> dict[str, str]:
    """The environment of one worker. `worker_env` has the host's `WORKER_ENV_X` as `X`; HOME is the workspace.

    LOBU_SESSION_STORE is the supervisor's alone: `file` when it runs so, absent otherwise, whatever `worker_env` says.
    """
    environment = {"PATH": PATH, "LANG": LANG, "HOME": workspace, **worker_env}
    environment.pop(SESSION_STORE, None)
    if session_store == "file":
        environment[SESSION_STORE] = session_store
    environment.update(WORKSPACE_DIR=workspace, DISPATCHER_URL=dispatcher_url, WORKER_TOKEN=token)
    return environment

"""What to tell a person about an error: a sentence that ends in the next step. Imported when something failed."""

from __future__ import annotations

import click

from lobu_actors.client.errors import ClientError, RequestRefused, ServerAway
from lobu_actors.runtime.errors import RestartIntensityExceeded
from lobu_actors.store.errors import InvalidDatabaseUrl, StoreError, StoreUnavailable
from supervisor.config.errors import ConfigError
from supervisor.logs import mask
from supervisor.rollout_turn import RolloutFailed
from supervisor.spawner.connection import SpawnerLost

MAX_SENTENCES = 5
NEXT_STEPS = {
    "AGENT_NOT_FOUND": "its agents stand as [[agents]] in the server's lobu.toml",
    "NO_DEFAULT_AGENT": "name one with --agent",
    "CONVERSATION_NOT_FOUND": "`lobu status` lists the newest ones",
}


def sentences(error: BaseException) -> list[str]:
    """One for each different error in `error`, which may be a group. Never empty, never with a credential in it."""
    found = list(dict.fromkeys(mask(_sentence(leaf)) for leaf in _leaves(error)))
    return found[:MAX_SENTENCES]


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    match error:
        case click.ClickException():
            return error.format_message()
        case ServerAway():
            return f"{text}; start the server with `lobu run`, or name another with --gateway."
        case RequestRefused(status=401):
            return f"{text.rstrip('.')}; run this in the folder of `lobu run`, or set LOBU_ADMIN_KEY."
        case RequestRefused(code=code) if code in NEXT_STEPS:
            return f"{text.rstrip('.')}; {NEXT_STEPS[code]}. ({code})"
        case RequestRefused():
            return f"{text} ({error.code})"
        case StoreUnavailable():
            return f"the database cannot be reached ({text}); check DATABASE_URL and that the server runs."
        case InvalidDatabaseUrl():
            return f"the database URL cannot be used: {text}"
        case RestartIntensityExceeded(error=Exception() as last):
            return f"`{error.child_id}` failed again and again: {_sentence(last)}"
        case SpawnerLost():
            return f"{text} Without it no worker can be started; what it said of that itself is above."
        case ConfigError() | RolloutFailed() | ClientError() | StoreError():
            return text
        case OSError():
            return f"{error.strerror or text}{f': {error.filename}' if error.filename else ''}"
        case _:
            kind = type(error).__name__
            return f"internal error, {kind}: {text}; run it as `lobu --debug …` for the traceback, and report that."

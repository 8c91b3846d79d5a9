"""What can go wrong with the store, split by what the caller should do about it."""

from __future__ import annotations


class StoreError(Exception):
    """Base of all store errors."""


class StoreUnavailable(StoreError):
    """No connection, or the server went away: the statement did not begin, or it only read. Try again later."""


class StoreOutcomeUnknown(StoreUnavailable):
    """The connection or the deadline broke while a write was under way: it may have happened. Ask again by its key."""


class StoreRejected(StoreError):
    """The server refused the statement itself: a bug here, or a schema that does not fit. Trying again is no use."""


class TurnUnreadable(StoreRejected):
    """A turn's row holds what this version cannot read. Never says what the message was."""


class StoreDuplicate(StoreRejected):
    """A unique key is taken: what was to be written is there already, or something else is in its place."""


class SchemaMismatch(StoreError):
    """The database's schema is older, newer or made from other files than this program's; the message says more."""


class SessionsShared(StoreError):
    """Something between us and the server gives each transaction another session; the message says what to do."""


class SnapshotCorrupt(StoreError):
    """A stored session does not match its hash. Reset the conversation."""


class InvalidDatabaseUrl(StoreError):
    """The URL cannot be used; the message says what is wrong with it."""


class EmbeddedServerError(StoreError):
    """The embedded server could not be started or stopped; the message names the log and the next step."""

"""The store in memory, for tests and trials: the same promises as Postgres, kept by never awaiting inside a method.

Each method passes one checkpoint and then reads and writes without another, so trio runs it as one transaction.
"""

from lobu_actors.store.memory.store import MemoryStore

__all__ = ["MemoryStore"]

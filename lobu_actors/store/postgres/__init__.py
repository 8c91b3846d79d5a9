"""The store on PostgreSQL 15 or newer: one statement per method wherever a guard is promised, over a bounded pool.

Everything happens in the named queries; here parameters are laid out and rows become records.
"""

from lobu_actors.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]

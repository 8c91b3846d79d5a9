"""Puts the parts together. Owns the pool's life and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from lobu_actors.store.errors import SchemaMismatch
from lobu_actors.store.migrate import pending
from lobu_actors.store.pool import Pool
from lobu_actors.store.pooler import check_sessions
from lobu_actors.store.postgres.actors import ActorPart
from lobu_actors.store.postgres.conversations import ConversationPart
from lobu_actors.store.postgres.files import FilePart
from lobu_actors.store.postgres.hosts import HostPart
from lobu_actors.store.postgres.links import LinkPart
from lobu_actors.store.postgres.listing import ListingPart
from lobu_actors.store.postgres.questions import QuestionPart
from lobu_actors.store.postgres.retention import RetentionPart
from lobu_actors.store.postgres.rollout import RolloutPart
from lobu_actors.store.postgres.sessions import SessionPart
from lobu_actors.store.postgres.singletons import SingletonPart
from lobu_actors.store.postgres.tenants import TenantPart
from lobu_actors.store.postgres.tickets import TicketPart
from lobu_actors.store.postgres.timelines import TimelinePart

if TYPE_CHECKING:
    from lobu_actors.store.protocol import Store


class PostgresStore(
    TenantPart,
    TicketPart,
    ConversationPart,
    ActorPart,
    QuestionPart,
    SessionPart,
    RetentionPart,
    HostPart,
    FilePart,
    LinkPart,
    ListingPart,
    SingletonPart,
    RolloutPart,
    TimelinePart,
):
    """Implements `protocol.Store`. Usable at once: connections are opened when they are needed."""

    @classmethod
    def connect(
        cls, url: str, *, pool_size: int = 8, call_timeout_seconds: float = 10.0, application_name: str | None = None
    ) -> Self:
        """A store on a database whose schema is migrated (`check_schema` says so). Opens nothing yet."""
        pool = Pool(url, size=pool_size, call_timeout_seconds=call_timeout_seconds, application_name=application_name)
        return cls(pool)

    async def check_schema(self) -> None:
        """Raises SchemaMismatch unless the schema is the one that this program was written for."""
        missing = await pending(self.pool.url)
        if missing:
            raise SchemaMismatch(f"the database lacks {', '.join(missing)}; run `lobu migrate`")

    async def check_sessions(self) -> None:
        """Raises SessionsShared behind a pooler that gives no sessions of one's own."""
        await check_sessions(self.pool.url)

    def close(self) -> None:
        self.pool.close()


if TYPE_CHECKING:

    def _implements(store: PostgresStore) -> Store:
        return store

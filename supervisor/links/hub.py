"""Puts the links of one host together: what comes in, what goes out, and what is forwarded between the two."""

from __future__ import annotations

from functools import partial

import structlog
import trio

from lobu_actors import telemetry
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.environment import Environment
from lobu_actors.conversation.messages import Message, TurnAccepted
from lobu_actors.conversation.question_messages import QuestionAnswered
from lobu_actors.gateway.link.auth import HostTokens
from lobu_actors.gateway.link.peers import Peers
from lobu_actors.gateway.link.router import Router
from lobu_actors.runtime.child_spec import ChildContext, ChildSpec
from lobu_actors.store.errors import StoreError
from lobu_actors.store.records import Owed
from supervisor.config.settings import LinkSettings
from supervisor.conversations import Conversations
from supervisor.links.notices import Notices
from supervisor.links.server import LinkServer, Listen, Places
from supervisor.links.takeover import Takeover

log = structlog.get_logger(__name__)

LOOK_BATCH = 500


class LinkHub:
    """`gateway` is what an edge of this process calls. `listening` goes into the tree before the membership, which
    tells others the address, `reaching_out` behind it. Both are empty when no links are wanted."""

    def __init__(
        self,
        settings: LinkSettings,
        environment: Environment,
        conversations: Conversations,
        tokens: HostTokens,
        places: Places,
    ) -> None:
        self._settings = settings
        self._env = environment
        self._conversations = conversations
        me, store = environment.host_id, environment.store
        self._server = LinkServer(
            Listen(settings.host, settings.port, settings.unix_path),
            me,
            tokens,
            conversations,
            environment.feeds,
            environment.owners,
            self._hinted,
            places,
        )
        self.peers = Peers(me, store.find_peers, tokens, environment.feeds, environment.owners)
        self._notices = Notices(store, me, self._hinted, self._look)
        self._takeover = Takeover(store, lambda: self.peers.phases, self._look)
        self.gateway = Router(conversations, environment.owners, self.peers, store.find_owner)

    def url(self) -> str | None:
        """Where other hosts reach this one; None: nowhere."""
        if self._server.port is None or self._settings.advertise is not None:
            return self._settings.advertise
        host = self._settings.host or ""
        return f"ws://{f'[{host}]' if ':' in host else host}:{self._server.port}"

    @property
    def listening(self) -> list[ChildSpec]:
        wanted = self._settings.host is not None or self._settings.unix_path is not None
        return [ChildSpec("links in", self._server.run)] if wanted else []

    @property
    def reaching_out(self) -> list[ChildSpec]:
        if self._settings.host is None:
            return []
        return [
            ChildSpec("links out", partial(_run_peers, self.peers)),
            ChildSpec("notices", self._notices.run),
            ChildSpec("takeover", self._takeover.run),
        ]

    async def forward(self, host_id: str, ref: ConversationRef) -> bool:
        """Tell a host of a conversation that it may take. False: there is no link to it."""
        client = self.peers.client(host_id)
        if client is None or not client.hint(ref, None):
            return False
        telemetry.LINK_FORWARDS.labels("placement").inc()
        return True

    def leave_word(self, host_id: str, ref: ConversationRef) -> None:
        """For a host to which there is no link."""
        self._notices.tell(host_id, ref, None)

    def not_ours(self, ref: ConversationRef, host_id: str, message: Message) -> None:
        """What came here goes on to the owner: over the link, else through the store."""
        client = self.peers.client(host_id)
        if isinstance(message, TurnAccepted):
            message_id = message.turn.message_id
            if client is not None and client.hint(ref, message_id):
                telemetry.LINK_FORWARDS.labels("hint").inc()
            else:
                self._notices.tell(host_id, ref, message_id)
        elif isinstance(message, QuestionAnswered) and client is not None:
            telemetry.LINK_FORWARDS.labels("answer").inc()
            client.answered(ref, message.question_id, message.answer)

    async def _hinted(self, ref: ConversationRef, message_id: str | None) -> None:
        """A turn that was committed elsewhere: read here, so that a hint holds no content."""
        try:
            turn = None if message_id is None else await self._env.store.find_turn(ref, message_id)
        except StoreError as error:
            log.warning("hinted turn cannot be read", conversation=ref.conversation_id, error=str(error))
            turn = None
        if turn is None:
            self._conversations.sweep(Owed(ref, closing=False))
        else:
            await self._conversations.accepted(turn)

    async def _look(self) -> None:
        try:
            owed = await self._env.store.find_owed(self._env.host_id(), limit=LOOK_BATCH, older_than_seconds=0)
        except StoreError as error:
            log.warning("not looked, the store is away", error=str(error))
            return
        for found in owed:
            self._conversations.sweep(found)


async def _run_peers(peers: Peers, context: ChildContext) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peers.run)
        context.started()
        await context.stopping.wait()
        nursery.cancel_scope.cancel()

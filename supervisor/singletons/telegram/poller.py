"""The one poller of a bot: takes updates in as turns, and has what their chats are owed delivered.

An update is confirmed by the poll after the one that brought it, when all that it means is committed: the debt to the
chat first, then the turn. A poller that dies between leaves the update to its successor, for whom both are there
already.

Never two polls of one bot at once, also when this process stands still in the middle of one: a poll asks the server to
answer before the trust in this host's lease ends, which is before anybody else may hold the poller's. (What cannot be
bounded is a process that stops between that decision and its first byte on the wire, for longer than the lease lives.
The server answers such a poll or the other with 409, and whatever it brings is a turn that is there already.)
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import httpx
import structlog
import trio

from lobu_actors import telemetry
from lobu_actors.contract.ids import new_id
from lobu_actors.contract.new_session import NEW_SESSION
from lobu_actors.contract.states import OnBusy
from lobu_actors.gateway.protocol import CancelResult
from lobu_actors.store.errors import StoreRejected
from lobu_actors.store.protocol import Store
from lobu_actors.store.records import NewTurn
from lobu_actors.store.records import Refused as TurnRefused
from lobu_actors.store.singleton_records import NewDelivery, SingletonName
from supervisor.singletons.asking import ask
from supervisor.singletons.delivery import Delivery
from supervisor.singletons.inbox import Inbox
from supervisor.singletons.singleton import Hold
from supervisor.singletons.telegram.api import Refused, TelegramApi, TelegramError, TooMany, Unreachable
from supervisor.singletons.telegram.bot import Bot
from supervisor.singletons.telegram.chats import TelegramChats
from supervisor.singletons.telegram.updates import BadUpdate, Meaning, Update, parse_update

log = structlog.get_logger(__name__)

MARGIN_SECONDS = 1.0  # for a poll's way there and back
WAIT_SECONDS = 0.1  # between two looks whether the trust was renewed
MIN_EMPTY_POLL_SECONDS = 0.5  # a server that answers at once has nothing to say so often
FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 30.0
REFUSED_PAUSE_SECONDS = 60.0  # nothing but a person mends a bad token
MAX_STRANGERS = 100
MIN_KEPT_SECONDS = 2 * 86_400.0  # of deliveries; Telegram keeps an update for a day

GREETING = "Send me a message. /new begins a new session, /stop ends what I am working on."
ONLY_TEXT = "I can read text only."
TOO_LONG = "This message is too long for me."
NOTHING_TO_STOP = "There is nothing to stop."
NOT_STOPPED = "That could not be stopped right now; try again."
NOT_TAKEN = "This message could not be taken in; try again later."
REFUSALS = {"full": "There are too many unanswered messages here; wait for a reply, then send it again."}


def poller_name(organization_id: str, bot: Bot) -> SingletonName:
    return SingletonName(organization_id, "poller", f"telegram:{bot.id}")


def poll_timeout(seconds_left: float, most: int) -> int | None:
    """How many whole seconds a poll may ask the server to wait; None: not worth one, the trust is to be renewed."""
    seconds = math.floor(seconds_left - MARGIN_SECONDS)
    return min(seconds, most) if seconds >= 1 else None


class TelegramPoller:
    """The body of a bot's singleton."""

    def __init__(
        self,
        organization_id: str,
        bot: Bot,
        store: Store,
        inbox: Inbox,
        *,
        max_message_bytes: int,
        kept_seconds: float,
    ) -> None:
        self._organization_id = organization_id
        self.bot = bot
        self._store = store
        self._inbox = inbox
        self._max_message_bytes = max_message_bytes
        self._kept_seconds = max(kept_seconds, MIN_KEPT_SECONDS)
        self._strangers: set[int] = set()
        self._log = log.bind(bot=bot.id)

    async def run(self, hold: Hold) -> None:
        # A redirect would carry the token to wherever it leads.
        async with httpx.AsyncClient(follow_redirects=False) as client:
            api = TelegramApi(client, self.bot.api_url, self.bot.token)
            delivery = Delivery(self._store, TelegramChats(api), hold, kept_seconds=self._kept_seconds)
            poll = _Poll(self, api, hold, delivery)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(delivery.run)
                await poll.run()

    async def take_in(self, update: Update, hold: Hold) -> str:
        """Do what the update means; gives a word for the metrics. Nothing is left to do when it returns."""
        if update.meaning is Meaning.NOTHING:
            return "ignored"
        if self.bot.allowed_chats is not None and update.chat_id not in self.bot.allowed_chats:
            self._say_who(update.chat_id)
            return "not allowed"
        try:
            return await self._obey(update, hold)
        except StoreRejected as error:  # it would be so for ever, and nothing behind it would be read
            self._log.error("update not taken in", update=update.update_id, error=str(error))
            await self._owe(update, hold, NOT_TAKEN)
            return "rejected"

    def _say_who(self, chat_id: int) -> None:
        """Once a chat: it is how an operator learns an id, and must not be a way to fill a disk."""
        if chat_id not in self._strangers and len(self._strangers) < MAX_STRANGERS:
            self._strangers.add(chat_id)
            self._log.warning("message from a chat that is not in allowed_chats", chat=chat_id)

    async def _obey(self, update: Update, hold: Hold) -> str:
        match update.meaning:
            case Meaning.TEXT | Meaning.NEW:
                return await self._accept(update, hold)
            case Meaning.STOP:
                return await self._stop(update, hold)
            case Meaning.START:
                await self._owe(update, hold, GREETING)
            case Meaning.NOT_TEXT if update.private:  # groups are full of them
                await self._owe(update, hold, ONLY_TEXT)
        return update.meaning.value

    async def _accept(self, update: Update, hold: Hold) -> str:
        if len(update.text.encode()) > self._max_message_bytes:
            await self._owe(update, hold, TOO_LONG)
            return "too long"
        is_new = update.meaning is Meaning.NEW
        turn = NewTurn(
            ref=update.ref(self._organization_id, self.bot.agent_id, self.bot.id),
            turn_id=new_id(),
            message_id=update.key,
            content=NEW_SESSION if is_new else update.text,
            on_busy=OnBusy.INTERRUPT if is_new else OnBusy.ENQUEUE,
            payload=update.payload,
        )
        await self._owe(update, hold)
        outcome = await self._inbox.take_in(turn, update.user_id)
        if isinstance(outcome, TurnRefused):
            await self._owe(update, hold, REFUSALS.get(outcome.reason, NOT_TAKEN))
            return outcome.reason
        return "accepted" if outcome.created else "repeated"

    async def _stop(self, update: Update, hold: Hold) -> str:
        """What is stopped says so itself, by its terminal event."""
        result = await self._inbox.cancel(update.ref(self._organization_id, self.bot.agent_id, self.bot.id))
        if result is not CancelResult.ACCEPTED:
            nothing = result is CancelResult.NOTHING_TO_CANCEL
            await self._owe(update, hold, NOTHING_TO_STOP if nothing else NOT_STOPPED)
        return "stop"

    async def _owe(self, update: Update, hold: Hold, notice: str | None = None) -> None:
        ref = update.ref(self._organization_id, self.bot.agent_id, self.bot.id)
        debt = NewDelivery(update.key, ref, update.key, update.address, notice)
        hold.check(await ask("owe_delivery", partial(self._store.owe_delivery, hold.lease, debt)))


class _Poll:
    """The loop of one activation, and how it bears a Bot API that is away or says no."""

    def __init__(self, poller: TelegramPoller, api: TelegramApi, hold: Hold, delivery: Delivery) -> None:
        self._poller = poller
        self._bot = poller.bot
        self._api = api
        self._hold = hold
        self._delivery = delivery
        self._bot_name: str | None = None
        # None: from the earliest unconfirmed update. An offset is used until it is known to have confirmed, and no
        # longer: after a quiet week Telegram may begin with lower numbers, which an old offset would throw away.
        self._offset: int | None = None
        self._trouble = ""
        self._pause_seconds = 0.0

    async def run(self) -> None:
        while True:
            seconds = poll_timeout(self._hold.seconds_left(), self._bot.poll_seconds)
            if seconds is None:
                await trio.sleep(WAIT_SECONDS)
                continue
            try:
                await self._once(seconds)
            except TelegramError as error:
                await trio.sleep(self._bear(error))

    async def _once(self, seconds: int) -> None:
        if self._bot_name is None:
            self._bot_name = str((await self._api.get_me()).get("username") or "")
            return
        began = trio.current_time()
        found = await self._api.get_updates(self._offset, seconds)
        self._offset = None
        for value in found:
            await self._take_in(value)
        if self._trouble:
            log.info("telegram answers again", bot=self._bot.id)
        self._trouble, self._pause_seconds = "", 0.0
        if not found:
            await trio.sleep(max(0.0, began + min(MIN_EMPTY_POLL_SECONDS, seconds) - trio.current_time()))

    async def _take_in(self, value: Any) -> None:
        try:
            update = parse_update(value, self._bot_name or "")
        except BadUpdate as error:
            raise Unreachable(str(error)) from None
        outcome = await self._poller.take_in(update, self._hold)
        telemetry.PLATFORM_UPDATES.labels("telegram", outcome).inc()
        self._offset = update.update_id + 1
        self._delivery.wake()

    def _bear(self, error: TelegramError) -> float:
        """How long to wait; says what is wrong when that is new."""
        if isinstance(error, TooMany):
            pause = error.retry_after
        elif isinstance(error, Refused) and error.code != 409:
            pause = REFUSED_PAUSE_SECONDS
        else:
            pause = min(max(self._pause_seconds * 2, FIRST_PAUSE_SECONDS), MAX_PAUSE_SECONDS)
            self._pause_seconds = pause
        if str(error) != self._trouble:
            self._trouble = str(error)
            log.warning("telegram cannot be polled", bot=self._bot.id, error=str(error), hint=_hint(error))
        return pause


def _hint(error: TelegramError) -> str:
    match error:
        case Refused(code=401 | 404):
            return "the token is wrong or was revoked"
        case Refused(code=409):
            return "another program polls this bot, or it has a webhook; only one of them can have its messages"
    return "trying again"

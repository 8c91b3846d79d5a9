"""From the settings to the singletons that this host stands ready to run."""

from __future__ import annotations

from lobu_actors.gateway.protocol import Gateway
from lobu_actors.runtime.child_spec import ChildSpec
from lobu_actors.store.protocol import Store
from supervisor.config.errors import ConfigError
from supervisor.config.settings import Settings
from supervisor.singletons.inbox import Inbox, Judge
from supervisor.singletons.scheduler import Scheduler, scheduler_name
from supervisor.singletons.singleton import HostTrust, Singleton

DAY_SECONDS = 86_400.0


def singletons_of(
    settings: Settings, store: Store, trust: HostTrust, gateway: Gateway, judge: Judge
) -> list[ChildSpec]:
    """A child each. Raises ConfigError for a bot whose token is not to be had."""
    organization_id, limits = settings.organization_id, settings.limits
    inbox = Inbox(store, gateway, judge, max_owed_turns=limits.queue_max_turns)
    found: list[Singleton] = []
    if settings.watchers:  # disabled ones too: that their times pass must be noted
        scheduler = Scheduler(organization_id, [w for w in settings.watchers if w.enabled], store, inbox)
        found.append(Singleton(scheduler_name(organization_id), store, trust, scheduler.run))
    if settings.telegram:
        # Brings an HTTP client, whose import is a fortieth of the start of a host that has no bot.
        from supervisor.singletons.telegram.poller import TelegramPoller, poller_name
    for bot in settings.telegram:
        if not bot.token:
            raise ConfigError(f"{bot.token_env} is not set; put there, or into .env, the token of [[telegram]].")
        poller = TelegramPoller(
            organization_id,
            bot,
            store,
            inbox,
            max_message_bytes=limits.message_max_bytes,
            kept_seconds=limits.retention_days * DAY_SECONDS,
        )
        name = poller_name(organization_id, bot)
        if any(other.name == name for other in found):
            raise ConfigError(f"{bot.token_env} is the token of a bot that another [[telegram]] table has already.")
        found.append(Singleton(name, store, trust, poller.run))
    return [ChildSpec(f"{one.name.kind} {one.name.key}", one.run) for one in found]

"""`lobu cancel`: ask the server to stop what a conversation is doing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import trio

from lobu_actors.client import Client, RetryPolicy
from supervisor.cli.options import example, gateway_options, json_option, print_json
from supervisor.config.gateway import GatewayPlace, find_gateway


@click.command("cancel", epilog=example("lobu cancel echo_admin_local"))
@click.argument("key")
@click.option("--message", "message_id", help="Cancel this message only.")
@json_option
@gateway_options
def command(key: str, message_id: str | None, as_json: bool, gateway: str | None, data_dir: Path | None) -> None:
    """Cancel everything that conversation KEY owes. Its messages end with `cancelled`."""
    receipt = trio.run(_cancel, find_gateway(gateway, data_dir), key, message_id)
    if as_json:
        print_json(receipt)
    elif receipt.get("stage") == "nothing-to-cancel":
        click.echo("Nothing to cancel: what was meant has ended.")
    else:
        click.echo("Asked for; the worker is stopped within its grace, and each message ends with `cancelled`.")


async def _cancel(place: GatewayPlace, key: str, message_id: str | None) -> dict[str, Any]:
    async with Client(place.url, place.key, call_retry=RetryPolicy(attempts=2)) as client:
        return await client.cancel(key, message_id)

"""Take a message in. The answer says that it is durable, nothing more; the reply comes over the event stream.

As JSON with a Bearer credential it is mostly answered by `edge.direct`, in the same way.
"""

from __future__ import annotations

from quart import Blueprint, Response

from edge.body import read_object
from edge.messages import ADDRESS, take_in
from edge.responses import json_response
from edge.services import Services
from edge.uploads import Uploads, is_upload


def routes(services: Services) -> Blueprint:
    blueprint = Blueprint("messages", __name__)
    uploads = Uploads(services.store, services.settings)

    @blueprint.post(ADDRESS)
    async def send_message(key: str) -> Response:
        # What never changes about a conversation is remembered; that it is there and open, the write itself checks.
        _, conversation = await services.conversation(key, fresh=False)
        if is_upload():
            async with uploads.receive(conversation.ref) as (body, file_ids):
                return json_response(await take_in(services, conversation, body, file_ids))
        return json_response(await take_in(services, conversation, await read_object(services.settings)))

    return blueprint

"""The address for clients of AG-UI: a run is a message of its thread, or the answer to a question that waits there."""

from __future__ import annotations

from quart import Blueprint, Response

from edge.body import read_object
from edge.dialects import following
from edge.dialects.ag_ui import AgUiStream
from edge.dialects.messages import BadMessages
from edge.dialects.page_requests import ag_ui_request
from edge.dialects.talk import digest, find_talk
from edge.errors import invalid_field
from edge.services import Services
from edge.stream_response import stream_response


def routes(services: Services) -> Blueprint:
    blueprint = Blueprint("ag_ui", __name__)

    @blueprint.post("/api/v1/ag-ui/<agent_id>")
    async def run(agent_id: str) -> Response:
        principal = await services.authenticate()
        body = await read_object(services.settings)
        try:
            wanted = ag_ui_request(body)
        except BadMessages as error:
            raise invalid_field(error.field, str(error)) from None
        talk = await find_talk(services, principal, agent_id, wanted.thread)
        if wanted.asking is None:
            followed = await following.answer(services, talk, *wanted.answer)
        else:
            followed = await following.say(services, talk, wanted.asking, "ag-ui-" + digest(wanted.run))
        encoder = AgUiStream(followed.head(), wanted.thread, wanted.run, wanted.messages)
        return stream_response(followed.by(encoder, cancels=True))

    return blueprint

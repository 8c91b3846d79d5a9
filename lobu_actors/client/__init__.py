"""What a program that talks to an edge imports. Works on trio and on asyncio; knows the wire, not the server.

async with Client("http://127.0.0.1:8787", key) as client:
    conversation = await client.open()
    receipt = await client.send(conversation.key, "Hello")
    async with client.stream(conversation.key, message_id=receipt.message_id) as events:
        async for event in events:
            print(event.type, event.content)
"""

from lobu_actors.client.client import Client, Conversation, Receipt
from lobu_actors.client.errors import ClientError, RequestRefused, ServerAway, StreamLost, UnexpectedAnswer
from lobu_actors.client.retry import RetryPolicy
from lobu_actors.client.stream import EventStream
from lobu_actors.client.transcript import ClientEvent, Transcript

__all__ = [
    "Client",
    "ClientError",
    "ClientEvent",
    "Conversation",
    "EventStream",
    "Receipt",
    "RequestRefused",
    "RetryPolicy",
    "ServerAway",
    "StreamLost",
    "Transcript",
    "UnexpectedAnswer",
]

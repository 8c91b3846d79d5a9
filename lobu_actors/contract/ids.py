"""Identifiers: how they look, how they are made, how a conversation is named.

An id is a name, never a proof. Who may use a conversation is decided against the stored organization, not against the
text of its key.
"""

from __future__ import annotations

import os
import re
import time
from typing import NamedTuple

MAX_ID_LENGTH = 128
MAX_KEY_LENGTH = 512
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+_-]*\Z")
_MESSAGE_ID = re.compile(r"[\x21-\x7e]{1,200}\Z")


class ConversationRef(NamedTuple):
    """Names one conversation in the whole cluster; the key of its actor and of its lease.

    A tuple, since it is looked up thirty times a turn, and a tuple is hashed without Python's help.
    """

    organization_id: str
    agent_id: str
    conversation_id: str


def new_id() -> str:
    """A UUID whose order is the order of its making to the millisecond (RFC 9562, version 7), as text.

    Time-ordered so that new rows go to the right edge of their index.
    """
    milliseconds = time.time_ns() // 1_000_000 & (1 << 48) - 1
    random = os.urandom(10)
    first, second = random[0] << 8 | random[1], random[2] << 8 | random[3]
    high, low = milliseconds >> 16, milliseconds & 0xFFFF
    return f"{high:08x}-{low:04x}-{0x7000 | first & 0xFFF:04x}-{0x8000 | second & 0x3FFF:04x}-{random[4:].hex()}"


def is_id(text: str) -> bool:
    """True for a fit agent, user, organization or thread id: letters, digits and `. _ : @ + -`, at most 128."""
    return len(text) <= MAX_ID_LENGTH and _ID.match(text) is not None


def is_message_id(text: str) -> bool:
    """True for what a client may choose as messageId: 1 to 200 visible ASCII characters."""
    return _MESSAGE_ID.match(text) is not None


def is_conversation_key(text: str) -> bool:
    return len(text) <= MAX_KEY_LENGTH and _ID.match(text) is not None


def conversation_key(agent_id: str, user_id: str, organization_id: str, thread: str | None = None) -> str:
    """`<agentId>_<userId>_<organizationId>[_<thread>]`."""
    parts = [agent_id, user_id, organization_id]
    if thread:
        parts.append(thread)
    return "_".join(parts)


def watcher_conversation_key(agent_id: str, watcher_id: str, run_id: str) -> str:
    """A scheduled run's key: `<agentId>_watcher_<watcherId>_run_<runId>`, with no organization in it."""
    return f"{agent_id}_watcher_{watcher_id}_run_{run_id}"

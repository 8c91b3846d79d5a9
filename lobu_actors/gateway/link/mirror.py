"""The client's side of one followed conversation: what its owner tells, written onto the feed that is read here.

The lease's epoch says whom to believe when two hosts claim to own it, or an actor here does: see `FeedWriter`. What a
mirror cannot give (the link was cut, a follower fell behind) is in the log, and readers are sent there.
"""

from __future__ import annotations

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.feed import Feed, LiveText
from lobu_actors.gateway.link import wire
from lobu_actors.gateway.writer import FeedWriter


class Mirror:
    def __init__(self, ref: ConversationRef, feed: Feed) -> None:
        self._ref = ref
        self._feed = feed
        self._writer: FeedWriter | None = None
        self._text: LiveText | None = None
        self._whole = 0  # length of the text when its telling began

    @property
    def live(self) -> bool:
        """Its owner is at the other end, and heard."""
        return self._writer is not None and self._writer.writes

    def take(self, message: wire.Message) -> None:
        """Raises WireError for what does not go on where the last message ended."""
        match message:
            case wire.Live():
                self._writer = FeedWriter(self._feed, message.epoch, message.last_seq)
                self._begin(message.text)
            case wire.Begun():
                self._begin(message.text)
            case wire.Appended():
                self._append(message)
            case wire.TextEnded():
                self._begin(None)
            case wire.Transient():
                self._told().transient(message.type, message.data)
            case wire.Durable():
                self._told().durable(message.event(self._ref))
            case wire.InLog():
                self._told().know(message.seq)
            case _:
                raise wire.WireError(f"{type(message).__name__} is not of a follow")

    def end(self) -> None:
        """Its owner is not heard any more, or does not own it: nobody here knows what runs."""
        if self._writer is not None:
            self._writer.end_text()
        self._writer = self._text = None

    def _told(self) -> FeedWriter:
        if self._writer is None:
            raise wire.WireError("told of a conversation that the other side did not say it owns")
        return self._writer

    def _begin(self, text: wire.Text | None) -> None:
        writer = self._told()
        if text is None:
            self._text = None
            writer.end_text()
        else:
            self._text = LiveText(text.message_id, text.attempt, text.start_seq, text.content)
            self._whole = text.length
            writer.begin_text(self._text)
        self._settle()

    def _append(self, message: wire.Appended) -> None:
        writer, text = self._told(), self._text
        if text is None or message.offset != text.length:
            raise wire.WireError("text that does not go on where the last ended")
        if writer.writes:
            writer.append_text(message.content)
        else:
            text.append(message.content)
        self._settle()

    def _settle(self) -> None:
        """What ran when the telling began is here."""
        if self._text is None or self._text.length >= self._whole:
            self._feed.settle()

"""What can go wrong for a client, split by what its caller should do."""

from __future__ import annotations


class ClientError(Exception):
    """Base of all errors of the client. The text is one sentence for a person."""


class ServerAway(ClientError):
    """Nothing answered at the server's address, or not in time. Start the server, or try again later."""


class StreamLost(ClientError):
    """The event stream broke and could not be resumed in as many attempts as the retry policy allows.

    Nothing is lost on the server: a new stream from `last_id` gives what this one lacked.
    """

    def __init__(self, message: str, last_id: str | None) -> None:
        super().__init__(message)
        self.last_id = last_id


class RequestRefused(ClientError):
    """The server refused the request and said why. Change the request; trying it again is no use.

    `code` is one of `contract.errors.ApiError`, or `HTTP_<status>` when the answer carried none.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class UnexpectedAnswer(ClientError):
    """What answered does not speak this API: the address is that of something else, or of another version."""

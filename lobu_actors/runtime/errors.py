"""The runtime's errors, in one place.

Owns what can go wrong in mailboxes, actors and supervisors, grouped by what the caller should do. Knows nothing of what
the actors are for.
"""

__all__ = [
    "ActorStopped",
    "AskTimeout",
    "ChildNeverStarted",
    "ChildStartFailed",
    "InvalidChildSpec",
    "MailboxClosed",
    "MailboxFull",
    "Nudged",
    "RegistryFull",
    "RestartIntensityExceeded",
    "RuntimeFault",
    "StartTimeout",
    "StopTimeout",
]


class RuntimeFault(Exception):
    """Base of every error that the runtime itself raises."""


# The caller may try again later, or shed the load.


class MailboxFull(RuntimeFault):
    """The mailbox has no room and its overflow rule does not make any; the message was not accepted."""


class RegistryFull(RuntimeFault):
    """The registry runs as many actors as it may, so it activates no other key until one ends."""


class AskTimeout(RuntimeFault):
    """No answer before the deadline. As in OTP, the actor may still handle the message; its answer is discarded."""


# Nobody is there: find out why, or take another path.


class MailboxClosed(RuntimeFault):
    """The mailbox takes no more messages or, for its reader, holds no more."""


class Nudged(RuntimeFault):
    """The reader of a mailbox has waited long enough, says whoever looks after it."""


class ActorStopped(RuntimeFault):
    """The actor has ended, is not allowed to start, or ended before it handled the message."""


# The program is wrong.


class InvalidChildSpec(RuntimeFault, ValueError):
    """A child spec, or a supervisor's list of them, contradicts itself. The message is one sentence that says how."""


# A child failed, and its supervisor could not or may not repair it.


class StartTimeout(RuntimeFault):
    """A child did not call `started()` in time. Its cause is the error that it raised when cancelled, if any."""

    def __init__(self, child_id: str, seconds: float) -> None:
        super().__init__(f"child {child_id!r} did not start within {seconds:g} s")
        self.child_id = child_id
        self.seconds = seconds


class ChildNeverStarted(RuntimeFault):
    """A child ended without an error before it called `started()`."""

    def __init__(self, child_id: str) -> None:
        super().__init__(f"child {child_id!r} ended before it called started()")
        self.child_id = child_id


class StopTimeout(RuntimeFault):
    """An actor's `stopped()` took too long and was cancelled."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"stopped() did not end within {seconds:g} s")
        self.seconds = seconds


class ChildFault(RuntimeFault):
    """A supervisor ended because of one child; `error` is that child's error, whole, or None if it ended without."""

    def __init__(self, message: str, child_id: str, error: Exception | None) -> None:
        super().__init__(message)
        self.child_id = child_id
        self.error = error


class ChildStartFailed(ChildFault):
    """A child failed when its supervisor first started it, so the supervisor did not start either."""

    def __init__(self, child_id: str, error: Exception | None) -> None:
        super().__init__(f"child {child_id!r} failed to start: {error!r}", child_id, error)


class RestartIntensityExceeded(ChildFault):
    """Restarts came faster than the supervisor's intensity allows; all its children have been stopped."""

    def __init__(self, child_id: str, error: Exception | None) -> None:
        why = "it ended" if error is None else repr(error)
        super().__init__(f"gave up restarting after child {child_id!r}: {why}", child_id, error)

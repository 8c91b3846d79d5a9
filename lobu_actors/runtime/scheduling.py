"""Who runs first. Owns what is said to trio's scheduler; knows nothing of why."""

import trio

__all__ = ["others_first"]


async def others_first() -> None:
    """Let those run who have just been woken, before the caller goes on.

    Twice, since trio runs who is ready in one order or the other. Not cancellable: what the caller has done before is
    done, and what it does next belongs to it.
    """
    await trio.lowlevel.cancel_shielded_checkpoint()
    await trio.lowlevel.cancel_shielded_checkpoint()

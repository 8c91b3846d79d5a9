"""The garbage collector of a program that is being loaded, and of one that serves. Owns all that is said to it.

Loading makes a hundred thousand objects, and nearly all of them stay. The collector would look through them hundreds of
times meanwhile, a fifth of the time that a start takes, and through all of them again whenever it looks at what is
old, which holds everybody up for tens of milliseconds. So it does not see them at all.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """What is made inside is taken to stay for good, garbage among it (3 MB behind the imports of `lobu run`).

    To find that garbage would take as long as a tenth of the start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def loaded() -> None:
    """The program is about to serve: what it has put up since it was loaded stays, too."""
    gc.collect()
    gc.freeze()

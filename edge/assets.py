"""The files of the pages that the edge serves, read once. Knows their names and types, and nothing of what is in them.

The policy is the strictest under which they work: nothing from elsewhere, nothing inline, no markup made from text but
by the sanitiser, and the pages in no frame.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import msgspec

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dompurify"
)
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


class Asset(msgspec.Struct, frozen=True):
    content: bytes
    compressed: bytes
    content_type: str
    etag: str  # with its quotes


@cache
def load_assets() -> dict[str, Asset]:
    """By file name; folders are for the reader only. Read and compressed when somebody asks for a page first."""
    assets: dict[str, Asset] = {}
    for entry in _files(files("edge").joinpath("web")):
        content_type = _TYPES.get(entry.name.rpartition(".")[2])
        if content_type is None:
            continue
        if entry.name in assets:
            raise ValueError(f"two files are called {entry.name}")
        content = entry.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        assets[entry.name] = Asset(content, gzip.compress(content, mtime=0), content_type, etag)
    return assets


def _files(folder: Traversable) -> list[Traversable]:
    found: list[Traversable] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        found += _files(entry) if entry.is_dir() else [entry]
    return found

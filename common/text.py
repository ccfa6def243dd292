"""Text that crosses a border: what a peer wrote obeys nobody, what a peer reads names no path."""

from __future__ import annotations

import re

MAX_TEXT = 2000
"""Characters of a peer's text that are kept."""

_LOCATOR = re.compile(r"\b(?!https?:|spiffe:)([a-z][a-z0-9+.-]*):/{2,}[^\s'\"]*", re.IGNORECASE)
"""A database's or a store's address."""

_PATH = re.compile(r"(?<![\w.:/<-])/(?!rootstock\.)(?:[^\s/:;,'\"()]+/)+([^\s/:;,'\"()]*)")
"""An absolute path of two parts or more; the last is kept. Not the name of a gRPC call."""

_SERVER = re.compile(r'(server at|user|database|role) "[^"]*"(?: \([^)]*\))?(?:, port \d+)?')
"""How PostgreSQL's client names a server, a user and a database."""


def plain(text: str, limit: int = MAX_TEXT) -> str:
    """Return a peer's text as every database, message, log and terminal takes it.

    Terminal escapes, other control characters and what turns the direction of writing are replaced:
    PostgreSQL refuses a NUL, protobuf half of a surrogate pair, and a terminal obeys them.
    """
    text = text[:limit]
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)


def one_line(text: str, limit: int = MAX_TEXT) -> str:
    """Return a peer's text as `plain` does, on one line: it cannot pass for a line of ours."""
    return " ".join(plain(text, limit).split())


def outward(text: str) -> str:
    """Return an error's text as a peer may read it: without local paths and databases' addresses.

    The last part of a path stays: it is a blob's digest, or names what a setting is about.
    """
    text = _LOCATOR.sub(r"\1:…", text)
    return _PATH.sub(r"\1", _SERVER.sub(r"\1", text))

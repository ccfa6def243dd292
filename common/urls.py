"""URLs as settings name them, and what of one may be shown."""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"(://[^:/@\s]*:).*@", re.DOTALL)


def masked(url: str) -> str:
    """Return a URL without its password: http://user:***@host.

    The rule is wide, as a password may hold any sign: all up to the last @ goes.
    """
    return _PASSWORD.sub(r"\1***@", url)

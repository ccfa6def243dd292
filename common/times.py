"""Moments as they are stored and sent, RFC 3339 in UTC, and as people read them."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """Return the present moment, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def instant(seconds: float, timespec: str = "milliseconds") -> str:
    """Return a moment that is given in seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec)


def checked(moment: str) -> str:
    """Return a moment that a peer sent; ValueError if it is not one as `now` returns it."""
    if datetime.fromisoformat(moment).astimezone(UTC).isoformat(timespec="milliseconds") != moment:
        raise ValueError("it is no moment in UTC, to the millisecond")
    return moment


def readable(moment: str) -> str:
    """Return a moment as people read it: 2026-11-29 14:02:11 UTC."""
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"

"""Every call is signed: Ed25519 over site, method, time and a nonce that is used once."""

from __future__ import annotations

import math
import re
import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import grpc

from rootstock.common.errors import IdentityError, IntegrityError, UnreachableError
from rootstock.common.identity.keys import SigningKey, verify

SITE_KEY = "rootstock-site"
TIME_KEY = "rootstock-time"
NONCE_KEY = "rootstock-nonce"
SIGNATURE_KEY = "rootstock-signature-bin"

MAX_SKEW_SECONDS = 300.0
"""How far a lab's clock may be off: NTP keeps milliseconds, a machine just woken up minutes."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_TIME = re.compile(r"[0-9]{1,12}\.[0-9]{3}")
_NONCE = re.compile(r"[0-9a-f]{32}")


def signed_bytes(site: str, method: str, at: str, nonce: str) -> bytes:
    """Return what a call's signature is over; no part can hold a line feed."""
    return f"rootstock-call-v1\n{site}\n{method}\n{at}\n{nonce}".encode()


def sign_call(
    site: str, key: SigningKey, method: str, now: float
) -> tuple[tuple[str, str | bytes], ...]:
    """Return the metadata that proves who calls, at `now` in Unix time.

    The method is its full name, "/rootstock.federation.v1.Federation/GetPlan".
    """
    at, nonce = f"{now:.3f}", secrets.token_hex(16)
    signature = key.sign(signed_bytes(site, method, at, nonce))
    return ((SITE_KEY, site), (TIME_KEY, at), (NONCE_KEY, nonce), (SIGNATURE_KEY, signature))


class NonceMemory:
    """Remembers nonces for as long as their time stamp would be accepted, in bounded memory.

    A site that calls too often shuts out itself alone: what is left to every site, even when the
    memory is full, is more than an agent needs. In ten minutes `capacity` nonces of all sites are
    160 calls a second, the `share` of one site 33, and the `reserve` that a site has even if the
    capacity is used up one. Memory is bounded by the capacity and the reserves of the sites that
    have joined.
    """

    def __init__(self, capacity: int = 100_000, *, share: int = 20_000, reserve: int = 600) -> None:
        self._capacity = capacity
        self._share = share
        self._reserve = reserve
        self._seen: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    def first(self, site: str, nonce: str, now: float) -> bool:
        """Note a nonce; False if this site has used it before.

        Raises UnreachableError if remembering more calls would cost unbounded memory.
        """
        with self._lock:
            self._forget(now - 2 * MAX_SKEW_SECONDS)
            if (site, nonce) in self._seen:
                return False
            held = self._held[site]
            if held >= self._share or (len(self._seen) >= self._capacity and held >= self._reserve):
                raise UnreachableError(
                    f"site '{site}' has made {held} calls in {2 * MAX_SKEW_SECONDS:.0f} s; "
                    f"{self._share} are accepted of one site, {self._capacity} of all together "
                    f"and {self._reserve} in any case; call again later, and less often"
                )
            self._seen[site, nonce] = now
            self._held[site] += 1
            return True

    def _forget(self, before: float) -> None:
        while self._seen and next(iter(self._seen.values())) < before:
            (site, _), _ = self._seen.popitem(last=False)
            self._held[site] -= 1
            if not self._held[site]:
                del self._held[site]


def verify_call(
    metadata: Iterable[tuple[str, str | bytes]],
    method: str,
    key_of: Callable[[str], bytes | None],
    now: float,
    seen_nonces: NonceMemory | None,
) -> str:
    """Return the name of the site that makes a call, once it has proved it.

    `method` is the call's full name, as the server knows it; `key_of` gives the public key of a
    site that has joined; `now` is Unix time in seconds. `seen_nonces` are shared by all calls of
    one server, and None for a call that does no more the second time than the first, and whose
    caller nobody knows yet: strangers fill no memory.
    """
    parts = {key: value for key, value in metadata if key.startswith("rootstock-")}
    site = _text(parts, SITE_KEY, _NAME)
    at = _text(parts, TIME_KEY, _TIME)
    nonce = _text(parts, NONCE_KEY, _NONCE)
    signature = parts.get(SIGNATURE_KEY)
    if not isinstance(signature, bytes):
        raise IdentityError(f"the call has no {SIGNATURE_KEY}; sign it with the site's key")
    if math.fabs(float(at) - now) > MAX_SKEW_SECONDS:
        raise IdentityError(
            f"site '{site}': its clock is {float(at) - now:+.0f} s off, "
            f"{MAX_SKEW_SECONDS:.0f} s are allowed; set it (timedatectl set-ntp true)"
        )
    key = key_of(site)
    if key is None:
        raise IdentityError(f"site '{site}' is not known here; join first (rootstock site join)")
    try:
        verify(key, signature, signed_bytes(site, method, at, nonce), what=f"site '{site}'")
    except IntegrityError as error:
        raise IdentityError(f"{error}; a name belongs to the key that joined with it") from error
    # Last, so that nobody can use up a site's nonces without its key.
    if seen_nonces is not None and not seen_nonces.first(site, nonce, now):
        raise IdentityError(f"site '{site}': nonce {nonce} was used before; sign each call anew")
    return site


def _text(parts: dict[str, str | bytes], key: str, pattern: re.Pattern[str]) -> str:
    value = parts.get(key)
    if value is None:
        raise IdentityError(f"the call has no {key}; sign it with the site's key")
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise IdentityError(f"{key} is {value[:80]!r}, which does not fit {pattern.pattern}")
    return value


class _Details(NamedTuple):
    """grpc.ClientCallDetails is an interface only: the fields are this."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class SigningInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Signs every call of a synchronous channel in a site's name; `clock` tells Unix time."""

    def __init__(self, site: str, key: SigningKey, clock: Callable[[], float] = time.time) -> None:
        self._site = site
        self._key = key
        self._clock = clock

    def _intercept(self, continuation: Any, details: Any, request: Any) -> Any:
        method = details.method if isinstance(details.method, str) else details.method.decode()
        proof = sign_call(self._site, self._key, method, self._clock())
        signed = _Details(
            method=method,
            timeout=details.timeout,
            metadata=[*(details.metadata or ()), *proof],
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
            compression=details.compression,
        )
        return continuation(signed, request)

    intercept_unary_unary: Any = _intercept
    intercept_unary_stream: Any = _intercept
    intercept_stream_unary: Any = _intercept
    intercept_stream_stream: Any = _intercept

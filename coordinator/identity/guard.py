"""Who may call now, and the end of calls of those who no longer may.

What the database says of members is kept in memory and read anew after each change of it: only
this process writes it. A call that has begun ends as soon as its certificate is revoked or
expires, or its site is disabled, whatever the call waits for at that moment.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509

from rootstock.common.errors import IdentityError
from rootstock.common.identity.certificates import Identity, Role, read_identity
from rootstock.coordinator.identity.authority import Clock, utc_now
from rootstock.coordinator.registry import Access, Certificate, Change, Registry

_READ = 1024
"""Certificates that are remembered: to verify a signature takes a fifth of a millisecond."""


@dataclass(frozen=True)
class Caller:
    """Who makes a call, by the certificate of its connection."""

    name: str
    access: Access
    identity: Identity


@dataclass(eq=False)
class _Call:
    caller: Caller
    timeout: asyncio.Timeout


class Guard:
    """Tells who makes a call and whether it may, at its beginning and for as long as it lasts."""

    def __init__(
        self, registry: Registry, authority: x509.Certificate, clock: Clock = utc_now
    ) -> None:
        self._registry = registry
        self._authority = authority
        self._clock = clock
        self._identities: OrderedDict[bytes, Identity] = OrderedDict()
        self._certificates: dict[str, Certificate] = {}
        self._disabled: dict[str, str] = {}
        self._calls: set[_Call] = set()
        self._lock = threading.Lock()

    def start(self) -> Callable[[], None]:
        """Begin in the running loop; returns how to end it."""
        loop = asyncio.get_running_loop()

        def changed(change: Change) -> None:
            """Hear of a commit, in the thread that made it."""
            if change.members:
                self._read()
                loop.call_soon_threadsafe(self._cut)

        end = self._registry.subscribe(changed)
        self._read()
        return end

    def caller(self, certificate: bytes) -> Caller:
        """Return who has a certificate (PEM), which was presented in the connection's handshake.

        IdentityError if it names nobody who may call now.
        """
        identity = self._identity(certificate)
        self._require_good(identity)
        return Caller(identity.name, self._certificates[identity.serial].access, identity)

    @asynccontextmanager
    async def during(self, caller: Caller) -> AsyncIterator[None]:
        """Run a call; it is cut with an IdentityError as soon as the caller may no longer call."""
        self._require_good(caller.identity)
        left = (caller.identity.not_after - self._clock()).total_seconds()
        call = _Call(caller, asyncio.timeout(left))
        self._calls.add(call)
        try:
            async with call.timeout:
                yield
        except TimeoutError:
            if call.timeout.expired():
                self._require_good(caller.identity)
                # The loop's clock was faster than the system's.
                caller.identity.require_valid(caller.identity.not_after + timedelta(seconds=1))
            raise
        finally:
            self._calls.discard(call)

    def _identity(self, certificate: bytes) -> Identity:
        identity = self._identities.pop(certificate, None)
        if identity is None:
            identity = read_identity(certificate, self._authority)
        self._identities[certificate] = identity
        if len(self._identities) > _READ:
            self._identities.popitem(last=False)
        return identity

    def _require_good(self, identity: Identity) -> None:
        identity.require_valid(self._clock())
        who = f"{identity.role} '{identity.name}'"
        certificate = self._certificates.get(identity.serial)
        if certificate is None:
            raise IdentityError(
                f"the certificate of {who} is not on record here: the coordinator's state was put "
                f"back from a backup; join again (rootstock coordinator invite {identity.name} "
                "--again)"
            )
        if certificate.revoked_at is not None:
            raise IdentityError(
                f"the certificate of {who} was revoked: {certificate.reason}; ask the "
                f"coordinator's operator (rootstock coordinator invite {identity.name} --again)"
            )
        if identity.role is Role.SITE and identity.name in self._disabled:
            raise IdentityError(
                f"{who} is disabled: {self._disabled[identity.name]}; ask the coordinator's "
                f"operator (rootstock coordinator enable {identity.name})"
            )

    def _read(self) -> None:
        with self._lock:  # of two threads, the one that read last writes last
            self._disabled = {
                site.name: site.disabled_reason or ""
                for site in self._registry.sites.all()
                if site.disabled_at is not None
            }
            self._certificates = {
                each.serial: each for each in self._registry.certificates.current()
            }

    def _cut(self) -> None:
        for call in self._calls:
            try:
                self._require_good(call.caller.identity)
            except IdentityError:
                if not call.timeout.expired():
                    call.timeout.reschedule(asyncio.get_running_loop().time())

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from rootstock.common.errors import IdentityError
from rootstock.common.identity.certificates import Role, new_key, to_pem
from rootstock.coordinator.identity.authority import NetAuthority, utc_now
from rootstock.coordinator.identity.guard import Caller, Guard
from rootstock.coordinator.identity.members import Members
from rootstock.coordinator.registry import Access, Registry
from tests.support.members import Times, config

DAY = 86_400.0


class Guarded:
    """Two sites and an operator, each with a certificate, before a guard."""

    def __init__(self, state: Path) -> None:
        self.times = Times()
        self.registry = Registry(f"sqlite:///{state / 'registry.sqlite'}", self.times.seconds)
        self.authority = NetAuthority(config(state), self.times)
        self.members = Members(self.registry, self.authority, config(state))
        self.guard = Guard(self.registry, self.authority.certificate, self.times)
        for name in ("cat-lab", "dog-lab"):
            self.registry.sites.join(name, name.encode().ljust(32))
        self.cat = self.issue("cat-lab")
        self.dog = self.issue("dog-lab")
        self.ann = self.issue("ann", Access.VIEW)

    def issue(self, name: str, access: Access = Access.SITE) -> bytes:
        return to_pem(self.members.issue(name, access, new_key().public_key()))


@pytest_asyncio.fixture
async def net(tmp_path: Path) -> AsyncIterator[Guarded]:
    made = Guarded(tmp_path)
    end = made.guard.start()
    yield made
    end()
    made.registry.close()


def refused(net: Guarded, certificate: bytes, rule: str) -> None:
    with pytest.raises(IdentityError, match=rule):
        net.guard.caller(certificate)


async def test_a_caller_is_who_the_certificate_names(net: Guarded) -> None:
    for _ in range(2):  # read, and remembered
        assert (net.guard.caller(net.cat).name, net.guard.caller(net.cat).access) == (
            "cat-lab",
            Access.SITE,
        )
    assert net.guard.caller(net.ann).access is Access.VIEW


async def test_a_certificate_that_is_not_on_record_is_refused(net: Guarded) -> None:
    unknown = to_pem(net.authority.issue(new_key().public_key(), Role.SITE, "cat-lab"))
    refused(net, unknown, "not on record here")
    assert net.guard.caller(net.cat).name == "cat-lab"


async def test_a_certificate_of_another_net_is_refused(net: Guarded, tmp_path: Path) -> None:
    other = NetAuthority(config(tmp_path / "other"), net.times)
    refused(net, to_pem(other.issue(new_key().public_key(), Role.SITE, "cat-lab")), "not signed by")


async def test_who_is_disabled_may_call_again_once_enabled(net: Guarded) -> None:
    net.members.disable("cat-lab", "audit")
    refused(net, net.cat, "site 'cat-lab' is disabled: audit.*coordinator enable cat-lab")
    assert net.guard.caller(net.dog).name == "dog-lab"
    net.members.enable("cat-lab")
    assert net.guard.caller(net.cat).name == "cat-lab"


async def test_a_certificate_is_revoked_and_a_newer_one_is_not(net: Guarded) -> None:
    net.members.revoke("cat-lab", "stolen")
    newer = net.issue("cat-lab")
    refused(net, net.cat, "was revoked: stolen.*invite cat-lab --again")
    assert net.guard.caller(newer).name == "cat-lab"
    assert net.guard.caller(net.dog).name == "dog-lab"


async def test_a_certificate_expires(net: Guarded) -> None:
    net.times.seconds.now += 90 * DAY + 1
    refused(net, net.cat, "expired on")


def revoke(net: Guarded) -> None:
    net.members.revoke("cat-lab", "stolen")


def disable(net: Guarded) -> None:
    net.members.disable("cat-lab", "audit")


async def in_call(net: Guarded, caller: Caller, begun: asyncio.Event, order: list[str]) -> None:
    """Wait for nothing within a call, as a stream does that hears nothing."""
    try:
        async with net.guard.during(caller):
            begun.set()
            await asyncio.get_running_loop().create_future()
    except IdentityError as error:
        order.append(f"{caller.name}: {error}")


@pytest.mark.parametrize(
    ("end", "rule"), [(revoke, "revoked: stolen"), (disable, "disabled: audit")]
)
async def test_a_call_ends_when_its_caller_may_no_longer_call(
    net: Guarded, end: Callable[[Guarded], None], rule: str
) -> None:
    order: list[str] = []
    calls = []
    for certificate in (net.cat, net.dog):
        begun = asyncio.Event()
        caller = net.guard.caller(certificate)
        calls.append(asyncio.create_task(in_call(net, caller, begun, order)))
        await begun.wait()
    await asyncio.to_thread(end, net)  # as the operator's call does
    await calls[0]
    assert len(order) == 1
    assert rule in order[0]
    assert not calls[1].done()
    calls[1].cancel()


async def test_a_call_ends_when_its_certificate_does(tmp_path: Path) -> None:
    settings = config(tmp_path, client_days=timedelta(seconds=0.3) / timedelta(days=1))
    registry = Registry(f"sqlite:///{tmp_path / 'registry.sqlite'}")
    authority = NetAuthority(settings)
    members = Members(registry, authority, settings)
    guard = Guard(registry, authority.certificate)
    end = guard.start()
    certificate = members.issue("ann", Access.VIEW, new_key().public_key())
    # Certificates count whole seconds, rounded down.
    while utc_now() > certificate.not_valid_after_utc - timedelta(seconds=0.1):
        certificate = members.issue("ann", Access.VIEW, new_key().public_key())
    with pytest.raises(IdentityError, match="expired on"):
        async with guard.during(guard.caller(to_pem(certificate))):
            await asyncio.get_running_loop().create_future()
    end()
    registry.close()


async def test_a_time_out_within_a_call_is_its_own(net: Guarded) -> None:
    with pytest.raises(TimeoutError):
        async with net.guard.during(net.guard.caller(net.cat)):
            raise TimeoutError


async def test_the_end_of_a_call_is_no_cancellation_of_what_comes_after(net: Guarded) -> None:
    caller = net.guard.caller(net.cat)
    async with net.guard.during(caller):
        pass
    await asyncio.to_thread(revoke, net)
    await asyncio.sleep(0)
    with pytest.raises(IdentityError, match="revoked"):
        async with net.guard.during(caller):
            pytest.fail("the call began")

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from rootstock.common.errors import ConflictError, IdentityError, NotFoundError
from rootstock.coordinator.registry import Access, Change, Registry
from rootstock.coordinator.registry.invitations import MAX_FAILURES
from tests.support.registry_uploads import Clock

HOUR = 3600.0
KEY = b"w" * 32
OTHER_KEY = b"x" * 32


def invite(registry: Registry, name: str = "cow-lab", *, again: bool = False) -> str:
    return registry.invitations.create(name, Access.SITE, HOUR, again=again)


def with_secret(token: str, secret: str) -> str:
    return f"{token.partition('.')[0]}.{secret}"


def refused(registry: Registry, token: str, rule: str = "the token is wrong") -> None:
    with pytest.raises(IdentityError, match=rule):
        registry.invitations.redeem(token, KEY)


def test_an_invitation_binds_its_name_to_a_key_once(registry: Registry) -> None:
    token = invite(registry)
    assert registry.invitations.redeem(token, KEY).name == "cow-lab"
    assert registry.sites.key_of("cow-lab") == KEY
    refused(registry, token, "of 'cow-lab' was used; ask for another one.*--again")


def test_of_two_who_have_a_token_at_once_one_joins(registry: Registry) -> None:
    for number in range(10):
        token = invite(registry, f"lab-{number}")
        together = threading.Barrier(2)
        joined: list[bytes] = []
        turned_away: list[Exception] = []

        def redeem(
            key: bytes,
            token: str = token,
            together: threading.Barrier = together,
            joined: list[bytes] = joined,
            turned_away: list[Exception] = turned_away,
        ) -> None:
            together.wait()
            try:
                registry.invitations.redeem(token, key)
            except IdentityError as error:
                turned_away.append(error)
            else:
                joined.append(key)

        threads = [threading.Thread(target=redeem, args=(key,)) for key in (KEY, OTHER_KEY)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(joined) == len(turned_away) == 1
        assert registry.sites.key_of(f"lab-{number}") == joined[0]


def test_an_invitation_ends_with_its_time(registry: Registry, clock: Clock) -> None:
    late, timely = invite(registry), invite(registry, "pig-lab")
    clock.now += HOUR
    assert registry.invitations.redeem(timely, KEY).name == "pig-lab"
    clock.now += 1
    refused(registry, late, "expired 1 s ago.*rootstock coordinator invite cow-lab --again")
    assert registry.sites.key_of("cow-lab") is None


@pytest.mark.parametrize(
    "token",
    ["", "a.b", "0" * 12 + "." + "0" * 32, "0" * 12 + "." + "0" * 31, "é" * 12 + "." + "0" * 32],
)
def test_what_is_no_token_is_refused_with_the_same_words(registry: Registry, token: str) -> None:
    rightful = invite(registry)
    refused(registry, token)
    refused(registry, with_secret(rightful, "0" * 32))
    assert registry.invitations.redeem(rightful, KEY).name == "cow-lab"


@pytest.mark.parametrize("failures", [MAX_FAILURES - 1, MAX_FAILURES])
def test_wrong_secrets_are_counted_and_end_an_invitation(registry: Registry, failures: int) -> None:
    token, other = invite(registry), invite(registry, "pig-lab")
    for number in range(failures):
        refused(registry, with_secret(token, f"{number:032x}"))
    if failures < MAX_FAILURES:
        assert registry.invitations.redeem(token, KEY).failures == failures
    else:
        refused(registry, token)
    assert registry.invitations.redeem(other, KEY).name == "pig-lab"


def test_a_newer_invitation_of_a_name_ends_the_older(registry: Registry) -> None:
    older, other = invite(registry), invite(registry, "pig-lab")
    newer = invite(registry)
    refused(registry, older)
    assert registry.invitations.redeem(newer, KEY).name == "cow-lab"
    assert registry.invitations.redeem(other, KEY).name == "pig-lab"


def test_only_a_hash_of_the_secret_is_stored(registry: Registry, tmp_path: Path) -> None:
    secret = invite(registry).partition(".")[2]
    registry.close()
    for path in tmp_path.iterdir():
        assert secret.encode() not in path.read_bytes()
        assert bytes.fromhex(secret) not in path.read_bytes()
    with sqlite3.connect(tmp_path / "registry.sqlite") as connection:
        ((stored,),) = connection.execute("SELECT secret_hash FROM invitations").fetchall()
    connection.close()
    assert len(stored) == 32


def test_a_name_that_has_joined_is_invited_again_on_purpose_only(registry: Registry) -> None:
    with pytest.raises(ConflictError, match=r"has joined already.*--again"):
        invite(registry, "cat-lab")
    # An operator's name is another one than a site's.
    registry.invitations.create("cat-lab", Access.ADMIN, HOUR)
    registry.certificates.add("01", "cat-lab", Access.SITE, 2e9)
    registry.certificates.add("02", "cat-lab", Access.ADMIN, 2e9)
    registry.certificates.add("03", "dog-lab", Access.SITE, 2e9)
    registry.invitations.redeem(invite(registry, "cat-lab", again=True), KEY)
    assert registry.sites.keys_of("cat-lab") == [KEY, b"c" * 32]
    revoked = {each.serial: each.reason for each in registry.certificates.all() if each.revoked_at}
    assert revoked == {"01": "joined again"}


def test_a_key_may_come_back(registry: Registry) -> None:
    for key in (KEY, b"c" * 32, KEY):
        registry.invitations.redeem(invite(registry, "cat-lab", again=True), key)
    assert registry.sites.keys_of("cat-lab")[0] == KEY
    assert set(registry.sites.keys_of("cat-lab")) == {KEY, b"c" * 32}


def test_a_token_does_not_pass_a_name_to_another_key(registry: Registry) -> None:
    token = invite(registry)
    registry.sites.join("cow-lab", OTHER_KEY)
    with pytest.raises(ConflictError, match="belongs to a lab with another key"):
        registry.invitations.redeem(token, KEY)
    assert registry.sites.key_of("cow-lab") == OTHER_KEY
    assert registry.invitations.redeem(token, OTHER_KEY).name == "cow-lab"


def test_an_operator_joins_without_becoming_a_site(registry: Registry) -> None:
    token = registry.invitations.create("ann", Access.VIEW, HOUR)
    assert registry.invitations.redeem(token, b"").access is Access.VIEW
    assert registry.sites.key_of("ann") is None


def test_certificates_are_revoked_by_name_and_kind(registry: Registry, clock: Clock) -> None:
    changes: list[Change] = []
    end = registry.subscribe(changes.append)
    for serial, access, expires in (
        ("01", Access.SITE, clock.now + 1),
        ("02", Access.SITE, clock.now + HOUR),
        ("03", Access.ADMIN, clock.now + HOUR),
    ):
        registry.certificates.add(serial, "cat-lab", access, expires)
    clock.now += 2
    assert registry.certificates.revoke("cat-lab", Access.SITE, "stolen") == 1
    assert registry.certificates.revoke("cat-lab", Access.SITE, "again") == 0
    end()
    assert all(change.members for change in changes)
    found = {each.serial: each.reason for each in registry.certificates.all()}
    assert found == {"01": None, "02": "stolen", "03": None}
    with pytest.raises(NotFoundError, match="site 'cow-lab' has no certificate"):
        registry.certificates.revoke("cow-lab", Access.SITE, "stolen")


def test_a_site_is_disabled_until_it_is_enabled(registry: Registry, clock: Clock) -> None:
    registry.sites.disable("cat-lab", "audit")
    clock.now += 5
    registry.sites.disable("cat-lab", "later")
    found = {site.name: (site.disabled_at, site.disabled_reason) for site in registry.sites.all()}
    assert found == {"cat-lab": (clock.now - 5, "audit"), "dog-lab": (None, None)}
    registry.sites.enable("cat-lab")
    assert all(site.disabled_at is None for site in registry.sites.all())
    with pytest.raises(NotFoundError, match="no site 'cow-lab'"):
        registry.sites.disable("cow-lab", "audit")
    with pytest.raises(NotFoundError, match="no site 'cow-lab'"):
        registry.sites.enable("cow-lab")

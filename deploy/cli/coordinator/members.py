"""``rootstock coordinator init | invite | sites | disable | enable | revoke``: who may call."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootstock.common.config import load
from rootstock.common.errors import ConfigurationError
from rootstock.coordinator.config import CoordinatorConfig, StateConfig
from rootstock.deploy.cli.access import answering
from rootstock.deploy.cli.coordinator.join import join
from rootstock.deploy.cli.options import AsJson, Config
from rootstock.deploy.output import note, print_plain, print_result, table

if TYPE_CHECKING:
    from rootstock.coordinator.identity.members import Members
    from rootstock.deploy.client import OperatorClient

MemberName = Annotated[str, typer.Argument(help="As `coordinator sites` lists it: cat-lab")]
Told = Annotated[str, typer.Option("--reason", help="Told to the member.")]
AsOperator = Annotated[bool, typer.Option("--operator", help="An operator, not a site.")]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_LONGEST_DAYS = 30.0


def add_to(app: typer.Typer) -> None:
    """Add the commands to `rootstock coordinator`."""
    for command in (init, invite, join, sites, disable, enable, revoke):
        app.command()(command)


def init(
    config: Config,
    request: Annotated[
        bool,
        typer.Option("--request", help="Write a request for an outside authority to sign instead."),
    ] = False,
    authority: Annotated[
        Path | None,
        typer.Option(help="What the outside authority signed: PEM, the net's certificate first."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the net's certificate authority and keys, unless they are there.

    The first `coordinator run` does the same. With --request, and then --authority, an outside
    authority stands above the net's; the key stays in the state folder. Again before it ends.
    """
    from rootstock.common.files import only_one
    from rootstock.common.identity.certificates import authority_fingerprint
    from rootstock.coordinator.identity.authority import request_outside, take_outside
    from rootstock.coordinator.identity.members import open_members
    from rootstock.coordinator.paths import StatePaths

    if request and authority is not None:
        raise ConfigurationError("--request and --authority: first the one, then the other")
    settings = load(config, CoordinatorConfig)
    paths = StatePaths(settings)
    if request:
        with only_one(paths.state, "coordinator"):
            path = request_outside(settings)
        print_result(
            {"net": settings.net, "request": str(path)},
            f"wrote a request for the authority of net {settings.net}: {path}",
            "have it signed as an authority, with the extensions that it asks for; then",
            f"rootstock coordinator init --config {config} --authority SIGNED.pem",
            as_json=as_json,
        )
        return
    if authority is not None:
        with only_one(paths.state, "coordinator"):
            take_outside(settings, authority)
    with open_members(settings) as members:
        made, found = members.made, members.authority
    folder, fingerprint = paths.authority.parent, authority_fingerprint(found)
    did = "made" if made else "there already" if authority is None else "taken"
    value = {
        "net": settings.net,
        "made": made,
        "ca": fingerprint,
        "issuer": found.issuer.rfc4514_string(),
        "until": found.not_valid_after_utc.timestamp(),
        "folder": str(folder),
    }
    print_result(
        value,
        f"{did}: the authority of net {settings.net}, in {folder}",
        f"ca    {fingerprint}",
        f"until {found.not_valid_after_utc:%F}, signed by {found.issuer.rfc4514_string()}",
        f"keep a backup of {folder / 'ca.key'}: without it no lab can join or renew",
        as_json=as_json,
    )


def invite(
    name: Annotated[str, typer.Argument(help="The lab's name from now on: cat-lab")],
    config: Config,
    ttl: Annotated[str, typer.Option(help="How long it is good for: 30m, 24h, 7d.")] = "24h",
    role: Annotated[
        Literal["site", "view", "decide", "admin"],
        typer.Option(help="A site; or an operator who looks, decides on merges, or does all."),
    ] = "site",
    again: Annotated[
        bool, typer.Option("--again", help="Replaces what the member has: certificates, keys.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the one line that a lab joins with, once: hand it over on a way that you trust.

    With --again for a lab that lost its key, moves to another machine, or changes its keys:
    certificates that it has are revoked when it joins.
    """
    from rootstock.coordinator.registry import Access

    seconds = _seconds(ttl)
    with _members(config) as (members, runs):
        offer = members.invite(name, Access(role), seconds, again=again)
    group = "site" if role == "site" else "coordinator"
    line = f"rootstock {group} join {offer.address} --token {offer.token} --ca {offer.authority}"
    value = {
        "name": name,
        "role": role,
        "address": offer.address,
        "token": offer.token,
        "ca": offer.authority,
        "seconds": seconds,
        "command": line,
        "coordinator_runs": runs,
    }
    if as_json:
        print_result(value, as_json=True)
        return
    print_plain(line)
    if not runs:
        note("the coordinator does not run; the invitation is taken once it does")


def sites(config: Config, as_json: AsJson = False) -> None:
    """List sites and operators, their certificates, and who is invited."""
    with _members(config) as (members, runs):
        found = members.list_members()
    rows = [
        (each.name, each.access.value, each.state, _until(each.expires_at), each.reason)
        for each in found
    ]
    headings = ("name", "role", "state", "until", "reason")
    print_result(
        {"members": [asdict(each) for each in found], "coordinator_runs": runs},
        table("Members", headings, rows, whole=("state", "until")),
        as_json=as_json,
    )


def disable(name: MemberName, config: Config, reason: Told, as_json: AsJson = False) -> None:
    """Refuse a site's calls, those that it is making included, until it is enabled."""
    with _members(config) as (members, runs):
        members.disable(name, reason)
    _print_done(name, "disabled", runs=runs, as_json=as_json)


def enable(name: MemberName, config: Config, as_json: AsJson = False) -> None:
    """Take a site's calls again."""
    with _members(config) as (members, runs):
        members.enable(name)
    _print_done(name, "enabled", runs=runs, as_json=as_json)


def revoke(
    name: MemberName,
    config: Config,
    reason: Told,
    operator: AsOperator = False,
    as_json: AsJson = False,
) -> None:
    """Revoke all certificates of a site for good; calls that it is making end at once.

    What it has shipped stays. It may come back with `coordinator invite NAME --again`.
    """
    with _members(config) as (members, runs):
        revoked = members.revoke(name, reason, operator=operator)
    value = {"name": name, "revoked": revoked, "coordinator_runs": runs}
    certificates = "certificate" if revoked == 1 else "certificates"
    print_result(value, f"{name}: {revoked} {certificates} revoked", as_json=as_json)


@contextmanager
def _members(config: Path) -> Iterator[tuple[Members | OperatorClient, bool]]:
    """Yield who changes members, and whether it is the coordinator that runs."""
    with answering(load(config, StateConfig).state) as client:
        if client is not None:
            yield client, True
            return
    from rootstock.coordinator.identity.members import open_members

    with open_members(load(config, CoordinatorConfig)) as members:
        yield members, False


def _print_done(name: str, state: str, *, runs: bool, as_json: bool) -> None:
    value = {"name": name, "state": state, "coordinator_runs": runs}
    print_result(value, f"{name} is {state}", as_json=as_json)


def _seconds(text: str) -> float:
    given = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if given is None or not 0 < int(given[1]) * _UNITS[given[2]] <= _LONGEST_DAYS * _UNITS["d"]:
        raise ConfigurationError(
            f"--ttl {text}: give a number and s, m, h or d, up to {_LONGEST_DAYS:.0f}d: 24h"
        )
    return int(given[1]) * _UNITS[given[2]]


def _until(expires_at: float | None) -> str:
    if expires_at is None:
        return ""
    return f"{datetime.fromtimestamp(expires_at, UTC):%Y-%m-%d %H:%M} UTC"

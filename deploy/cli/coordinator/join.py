"""``rootstock coordinator join``: an operator at another machine than the coordinator's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rootstock.common.config import expand
from rootstock.common.files import write_bytes
from rootstock.deploy.cli.joining import Address, Fingerprint, Token, TokenFile, given_token
from rootstock.deploy.cli.options import AsJson
from rootstock.deploy.output import print_result

_TOML = """\
# An operator of net {net}; commands that need no more than a coordinator that answers take it as
# --config: status, sites, invite, approve, reject.
net = {net_}
state = {state_}
"""


def join(
    address: Address,
    ca: Fingerprint,
    token: Token = None,
    token_file: TokenFile = None,
    state: Annotated[
        Path, typer.Option(help="Folder for the operator's key, certificate and coordinator.toml.")
    ] = Path("rootstock-operator"),
    as_json: AsJson = False,
) -> None:
    """Become an operator with an invitation (`coordinator invite NAME --role …`)."""
    from rootstock.common.identity.certificates import (
        check_fingerprint,
        make_request,
        new_key,
        parse,
        read_identity,
    )
    from rootstock.common.identity.credentials import Credentials
    from rootstock.common.transport.channel import Address as Where
    from rootstock.common.transport.channel import parse_address
    from rootstock.common.transport.joining import fetch_authority, trade

    where, state, key = parse_address(address), expand(str(state)).resolve(), new_key()
    authority = fetch_authority(where, check_fingerprint(ca))
    admitted = trade(where, authority, given_token(token, token_file), make_request(key), None)
    identity = read_identity(admitted.certificate, authority)
    coordinator = str(Where(where.host, admitted.port))
    toml = state / "coordinator.toml"
    write_bytes(state / "address", coordinator.encode())
    text = _TOML.format(
        net=identity.net,
        net_=json.dumps(identity.net),
        state_=json.dumps(str(state), ensure_ascii=False),
    )
    write_bytes(toml, text.encode())
    credentials = Credentials(key, parse(admitted.certificate), authority)
    credentials.write(state / "identity" / "operator.pem")
    value = {
        "net": identity.net,
        "operator": identity.name,
        "coordinator": coordinator,
        "config": str(toml),
        "certificate_until": identity.not_after.isoformat(),
    }
    print_result(
        value,
        f"operator {identity.name} of net {identity.net}, until {identity.not_after:%Y-%m-%d}",
        f"  next  rootstock coordinator status --config {toml}",
        as_json=as_json,
    )

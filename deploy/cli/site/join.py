"""``rootstock site join``: from an invitation to a lab that can run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rootstock.common.config import expand
from rootstock.common.files import write_bytes
from rootstock.deploy.cli.joining import Address, Fingerprint, Token, TokenFile, given_token
from rootstock.deploy.cli.options import AsJson
from rootstock.deploy.output import print_result

if TYPE_CHECKING:
    from rootstock.site_agent.wire.join import JoinedSite

_SITE_TOML = """\
# {name}, a lab of net {net}. Fill in what says FILL-IN, then:
#   rootstock site run --config {config}
site = {name_}
coordinator = {coordinator_}  # or the near end of a tunnel to it
state = {state_}  # keys, spool and log; keep a backup of identity/site.key

category = "FILL-IN"  # what this lab's images show, in small letters: cat
# tasks = ["classification"]  # those of the plan's tasks that there are labels for; default: all
share_samples = 0  # exactly so many images travel with the net; 0: none leaves this lab

[data]
kind = "image-folder"  # or voc, fashion-mnist, cifar10, mnist, digits
path = "FILL-IN"  # the folder with a folder of images for each class
"""


def join(
    address: Address,
    ca: Fingerprint,
    token: Token = None,
    token_file: TokenFile = None,
    state: Annotated[
        Path, typer.Option(help="Folder for the lab's keys and all that its agent keeps.")
    ] = Path("rootstock-state"),
    config: Annotated[
        Path, typer.Option("--config", "-c", help="site.toml to write, unless it is there.")
    ] = Path("site.toml"),
    as_json: AsJson = False,
) -> None:
    """Join a net with an invitation: the line that `rootstock coordinator invite` printed.

    Keys are made here and never leave. Join again with --again's invitation to replace them.
    """
    from rootstock.site_agent.wire.join import join as join_net

    state = expand(str(state)).resolve()
    expand(str(state))  # as what is written is read: a "$" in it would be another folder
    joined = join_net(address, given_token(token, token_file), ca, state)
    written = _write_site_toml(config, joined, state)
    until = joined.credentials.certificate.not_valid_after_utc
    value = {
        "net": joined.net,
        "site": joined.name,
        "coordinator": joined.coordinator,
        "state": str(state),
        "config": str(config),
        "config_written": written,
        "certificate_until": until.isoformat(),
    }
    next_step = (
        f"fill in category and data in {config}, then: rootstock site run --config {config}"
        if written
        else f'{config} is left as it is; it needs site = "{joined.name}", coordinator = '
        f'"{joined.coordinator}" and state = "{state}"'
    )
    print_result(
        value,
        f"joined net {joined.net} as {joined.name}",
        f"  keys         {state / 'identity'}; keep a backup of site.key",
        f"  certificate  until {until:%Y-%m-%d}; the agent renews it",
        f"  next         {next_step}",
        as_json=as_json,
    )


def _write_site_toml(path: Path, joined: JoinedSite, state: Path) -> bool:
    if path.exists():
        return False
    text = _SITE_TOML.format(
        name=joined.name,
        net=joined.net,
        config=path,
        # A string of TOML is one of JSON.
        name_=json.dumps(joined.name),
        coordinator_=json.dumps(joined.coordinator),
        state_=json.dumps(str(state), ensure_ascii=False),
    )
    write_bytes(path, text.encode())
    return True

"""``rootstock site join``: from an invitation to a lab that can run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from rootstock.common.config import check, expand
from rootstock.common.errors import ConfigurationError
from rootstock.common.files import write_bytes
from rootstock.deploy.cli.joining import Address, Fingerprint, Token, TokenFile, given_token
from rootstock.deploy.cli.options import AsJson
from rootstock.deploy.output import print_result
from rootstock.site_agent.config import SiteConfig

if TYPE_CHECKING:
    from rootstock.site_agent.wire.join import JoinedSite

_SITE_TOML = """\
# {name}, a lab of net {net}. {then}
#   rootstock site run --config {config}
site = {name_}
coordinator = {coordinator_}  # or the near end of a tunnel to it
state = {state_}  # keys, spool and log; keep a backup of identity/site.key

category = {category}  # what this lab's images show, in small letters: cat
# tasks = ["classification"]  # those of the plan's tasks that there are labels for; default: all
share_samples = 0  # exactly so many images travel with the net; 0: none leaves this lab

[data]
kind = "image-folder"  # or voc, fashion-mnist, cifar10, mnist, digits
path = {path}  # the folder with a folder of images for each class
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
    category: Annotated[
        str | None, typer.Option(help="What this lab's images show: cat. With --data.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The folder with a folder of images for each class.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Join a net with an invitation: the line that `rootstock coordinator invite` printed.

    Keys are made here and never leave. Join again with --again's invitation to replace them. With
    --category and --data site.toml is whole, and needs no editor; they are looked at first, as an
    invitation serves once.
    """
    images = _images(config, category, data)
    from rootstock.site_agent.wire.join import join as join_net

    state = expand(str(state)).resolve()
    expand(str(state))  # as what is written is read: a "$" in it would be another folder
    joined = join_net(address, given_token(token, token_file), ca, state)
    written = _write_site_toml(config, joined, state, images)
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
    run = f"rootstock site run --config {config}"
    if images is not None:
        next_step = f"rootstock site check --config {config}, then: {run}"
    elif written:
        next_step = f"fill in category and data in {config}, then: {run}"
    else:
        next_step = (
            f'{config} is left as it is; it needs site = "{joined.name}", coordinator = '
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


class _Images(NamedTuple):
    category: str
    data: Path


def _images(path: Path, category: str | None, data: Path | None) -> _Images | None:
    """Look whether there is what site.toml is to say; None where it is to be filled in later."""
    if category is None and data is None:
        return None
    if category is None or data is None:
        raise ConfigurationError("--category and --data make site.toml whole; give both or neither")
    if path.exists():
        raise ConfigurationError(
            f"{path} is there already, and --category and --data are for a new one; leave them "
            "out, or name another with --config"
        )
    from rootstock.site_agent.data.class_names import find_class
    from rootstock.site_agent.data.datasets import open_dataset

    folder = expand(str(data)).resolve()
    table = {"kind": "image-folder", "path": str(folder)}
    values = {"site": "lab", "coordinator": "localhost:1", "state": str(folder)}
    settings = check({**values, "category": category, "data": table}, SiteConfig, source="--data")
    find_class(category, open_dataset(settings.data).classes, "data.class_name")
    return _Images(category, folder)


def _write_site_toml(path: Path, joined: JoinedSite, state: Path, images: _Images | None) -> bool:
    if path.exists():
        return False

    def quoted(text: str) -> str:
        return json.dumps(text, ensure_ascii=False)  # a string of TOML is one of JSON

    text = _SITE_TOML.format(
        name=joined.name,
        net=joined.net,
        config=path,
        then="To train, and serve:" if images else "Fill in what says FILL-IN, then:",
        name_=quoted(joined.name),
        coordinator_=quoted(joined.coordinator),
        state_=quoted(str(state)),
        category=quoted(images.category if images else "FILL-IN"),
        path=quoted(str(images.data) if images else "FILL-IN"),
    )
    write_bytes(path, text.encode())
    return True

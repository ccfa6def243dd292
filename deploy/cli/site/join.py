"""``rootstock site join``: from an invitation to a lab that can run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rootstock.common.errors import ConfigurationError
from rootstock.common.files import read_capped, write_bytes
from rootstock.deploy.cli.options import AsJson
from rootstock.deploy.output import print_result

if TYPE_CHECKING:
    from rootstock.site_agent.wire.join import JoinedSite

_MAX_TOKEN_BYTES = 1024

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
    address: Annotated[str, typer.Argument(help="HOST:PORT of the invitation.")],
    ca: Annotated[str, typer.Option(help="Fingerprint of the net's authority: sha256:…")],
    token: Annotated[
        str | None, typer.Option(envvar="ROOTSTOCK_TOKEN", help="Token of the invitation.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File that holds the token, instead.")
    ] = None,
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

    state = state.resolve()
    joined = join_net(address, _token(token, token_file), ca, state)
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


def _token(token: str | None, file: Path | None) -> str:
    if file is not None:
        try:
            data = read_capped(file, _MAX_TOKEN_BYTES, what="token")
        except (FileNotFoundError, IsADirectoryError) as error:
            raise ConfigurationError(
                f"--token-file {file}: {error.strerror}; give a file that holds the token"
            ) from error
        return data.decode("utf-8", "replace").strip()
    if token is None:
        raise ConfigurationError(
            "there is no token; give --token or --token-file, or set ROOTSTOCK_TOKEN"
        )
    return token


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

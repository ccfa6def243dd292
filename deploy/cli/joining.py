"""What commands that join take: an invitation, whose token need not be on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rootstock.common.errors import ConfigurationError
from rootstock.common.files import read_capped

Address = Annotated[str, typer.Argument(help="HOST:PORT of the invitation.")]
Fingerprint = Annotated[
    str, typer.Option("--ca", help="Fingerprint of the net's authority: sha256:…")
]
Token = Annotated[
    str | None, typer.Option("--token", envvar="ROOTSTOCK_TOKEN", help="Token of the invitation.")
]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", help="File that holds the token, instead.")
]

_MAX_TOKEN_BYTES = 1024


def given_token(token: str | None, file: Path | None) -> str:
    """Return the token from wherever it was given."""
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

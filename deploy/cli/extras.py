"""A clear sentence where an optional part is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rootstock.common.errors import MissingExtraError

COORDINATOR_PACKAGES = frozenset(
    {"alembic", "boto3", "grpc_health", "grpc_reflection", "jinja2", "matplotlib", "mlflow"}
    | {"ray", "sqlalchemy"}
)


@contextmanager
def needs_coordinator(command: str) -> Iterator[None]:
    """Wrap the imports of a command that needs the coordinator extra.

    Raises
    ------
    MissingExtraError
        If one of the extra's packages is not installed; any other import error passes through.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in COORDINATOR_PACKAGES:
            raise
        raise MissingExtraError(
            f"`rootstock {command}` needs the coordinator extra ({error.name} is not installed); "
            "a lab does not need it; to run a coordinator: "
            "pip install 'rootstock-federation[coordinator]'"
        ) from error

"""A clear sentence where an optional part is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperGroup

from rootstock.common.errors import MissingExtraError

COORDINATOR_PACKAGES = frozenset(
    {"alembic", "boto3", "grpc_health", "grpc_reflection", "jinja2", "matplotlib", "mlflow"}
    | {"ray", "sqlalchemy"}
)


@contextmanager
def needs_coordinator(command: str) -> Iterator[None]:
    """Name the coordinator extra, and the command, where one of its packages is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        _require_others(error, command)
        raise


class CoordinatorGroup(TyperGroup):
    """A group of commands that need the coordinator extra."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command of the group."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            _require_others(error, " ".join([*_path(ctx), ctx.invoked_subcommand]))
            raise


def _path(ctx: Any) -> list[str]:
    """Return the names of a group and those around it, without the program's."""
    return [] if ctx.parent is None else [*_path(ctx.parent), ctx.info_name]


def _require_others(error: ModuleNotFoundError, command: str) -> None:
    """Raise a clear error if what is missing is one of the coordinator extra's packages."""
    if (error.name or "").split(".")[0] in COORDINATOR_PACKAGES:
        raise MissingExtraError(
            f"`rootstock {command}` needs the coordinator extra ({error.name} is not installed); "
            "a lab does not need it; to run a coordinator: "
            "pip install 'rootstock-federation[coordinator]'"
        ) from error

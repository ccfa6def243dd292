"""What MLflow's client raises, as our errors: what was being done, the address, the remedy.

A history is a view: none of these may end the coordinator. MLflow's stores are plug-ins that raise
what they like (requests', boto3's, the disk's, protobuf's errors), so every exception is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException
from requests import HTTPError

from rootstock.common.errors import (
    ConflictError,
    IdentityError,
    RootstockError,
    StorageError,
    UnreachableError,
)
from rootstock.common.urls import masked

MAX_DETAIL = 300
"""Characters of another program's words: a proxy answers with a page."""


@contextmanager
def mlflow_errors(address: str, what: str) -> Iterator[None]:
    """Turn what is raised while `what` is done at an MLflow server into one of our errors.

    `address` is the server's as people may see it. IdentityError: it lets nobody in; ConflictError:
    it refuses what it is sent; UnreachableError: all else, waiting may mend it.
    """
    try:
        yield
    except RootstockError:
        raise
    except Exception as error:  # see the top
        raise _explained(error, address, what) from error


def _explained(error: Exception, address: str, what: str) -> RootstockError:
    status, said = _status(error), _words(error)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return IdentityError(
            f"MLflow at {address} does not let the coordinator in ({what}): {said}; give its "
            "process MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (a server that checks "
            "host names wants --allowed-hosts, a proxy on the way NO_PROXY)"
        )
    if status is not None and status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return ConflictError(
            f"MLflow at {address} refused {what}: {said}; make the history again: `rootstock "
            "coordinator history rebuild`"
        )
    return UnreachableError(
        f"MLflow at {address} failed with {what}: {said}; see the log of its server, and that no "
        "proxy answers in its place"
    )


def _status(error: Exception) -> int | None:
    """Return the status code that a server answered with, if the error tells."""
    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    if isinstance(error, HTTPError) and error.response is not None:
        return error.response.status_code
    return None


@contextmanager
def artifact_errors(location: str) -> Iterator[None]:
    """Turn a disk's or a bucket's errors into StorageError; MLflow's own and HTTP's pass."""
    try:
        yield
    except (RootstockError, MlflowException, HTTPError):
        raise
    except Exception as error:  # see the top
        raise StorageError(
            f"MLflow's artifacts at {masked(location)} cannot be written by the coordinator: "
            f"{_words(error)}; let the server store them (mlflow server --artifacts-destination "
            "…, without --no-serve-artifacts and --default-artifact-root), in a new experiment, "
            "or give the coordinator's user the right to write there"
        ) from error


def _words(error: Exception) -> str:
    """Return an error's words in one line that is not too long."""
    name = type(error).__name__
    said = " ".join(str(error).split())
    words = said if isinstance(error, MlflowException) else f"{name}: {said}" if said else name
    return words if len(words) <= MAX_DETAIL else words[: MAX_DETAIL - 3] + "..."


def unreachable(address: str, problem: str) -> UnreachableError:
    """Return the error that says that no MLflow server answers."""
    port = urlsplit(address).port or 5000
    return UnreachableError(
        f"MLflow at {address} {problem}; start one (mlflow server --host 127.0.0.1 --port {port}) "
        "or set history.mlflow_uri to one that runs"
    )

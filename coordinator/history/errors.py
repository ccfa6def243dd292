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
    except ConflictError as error:
        raise ConflictError(f"MLflow at {address}: {error}") from error
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
def artifact_errors(location: str, experiment: str) -> Iterator[None]:
    """Turn into StorageError what is raised while artifacts are written without the server.

    A server that does not serve artifacts has its clients write them, to where it says.
    """
    served = urlsplit(location).scheme in ("mlflow-artifacts", "http", "https")
    try:
        yield
    except RootstockError:
        raise
    except Exception as error:  # see the top
        if served:
            raise
        raise StorageError(
            f"MLflow's artifacts at {masked(location)} cannot be written by the coordinator: "
            f"{_words(error)}; give its user the right to write there, or let the server store "
            "artifacts (mlflow server --artifacts-destination FOLDER, without --no-serve-artifacts "
            f"and --default-artifact-root) and rename experiment '{experiment}' there, so that one "
            "is made that it stores"
        ) from error


def _words(error: Exception) -> str:
    """Return an error's words in one line that is not too long: those of the network or the disk.

    MLflow's client packs these in its own, several deep.
    """
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)
    plain = next((each for each in reversed(chain) if isinstance(each, OSError)), error)
    said = " ".join(str(plain).split())
    words = said if isinstance(plain, MlflowException) else f"{type(plain).__name__}: {said}"
    return words if len(words) <= MAX_DETAIL else words[: MAX_DETAIL - 3] + "..."


def unreachable(address: str, problem: str) -> UnreachableError:
    """Return the error that says that no MLflow server answers."""
    port = urlsplit(address).port or 5000
    return UnreachableError(
        f"MLflow at {address} {problem}; start one (mlflow server --host 127.0.0.1 --port {port}) "
        "or set history.mlflow_uri to one that runs"
    )

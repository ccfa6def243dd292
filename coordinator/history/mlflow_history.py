"""The history in MLflow: one experiment a net, one run a merge. A view of the registry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Literal, Self
from urllib.parse import unquote, urlsplit, urlunsplit

from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from rootstock.common.errors import UnreachableError
from rootstock.common.files import write_bytes
from rootstock.common.identity.keys import fingerprint, load
from rootstock.coordinator.config import CoordinatorConfig, HistoryConfig
from rootstock.coordinator.history.content import RECORD, record_tag
from rootstock.coordinator.history.errors import artifact_errors, mlflow_errors, unreachable
from rootstock.coordinator.history.files import scratch_folder
from rootstock.coordinator.history.namespace import Namespace, claim
from rootstock.coordinator.history.record import MergeRecord
from rootstock.coordinator.history.runs import Runs
from rootstock.coordinator.history.server import health
from rootstock.coordinator.history.versions import CURRENT, PREVIOUS, Versions
from rootstock.coordinator.paths import StatePaths

TRIAL = "rootstock-trial.txt"
"""The file that is written to an artifact store at the start, and removed."""

CHECK_SECONDS = 5.0
"""How long a server may take to answer a health check; it takes milliseconds when it is well."""

Restored = Literal["made", "mended", "unchanged"]
"""What became of a merge's run when it was compared with the registry."""


class History:
    """Writes a coordinator's merges to an MLflow server. Calls block: use a thread of their own.

    Whatever MLflow's client, the network, a bucket or a disk raises is one of our errors: see
    `errors`. `coordinator` is the fingerprint of the coordinator's key, the identity of its net;
    `scratch` a folder for files on their way.
    """

    def __init__(self, server: HistoryConfig, net: str, coordinator: str, scratch: Path) -> None:
        self.address = server.address
        self._uri = _signed_in(server.mlflow_uri)
        self._net = net
        self._coordinator = coordinator
        self._scratch = scratch
        self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    @classmethod
    def of(cls, config: CoordinatorConfig, scratch: Path | None = None) -> Self:
        """Open the history of a coordinator that has run; NotFoundError if its key is missing."""
        paths = StatePaths(config)
        key = fingerprint(load(paths.key).public_key)
        return cls(config.history, config.net, key, scratch or paths.history)

    def check(self) -> None:
        """Raise UnreachableError if the server does not answer within seconds, or is no MLflow."""
        try:
            status = health(self._uri, CHECK_SECONDS)
        except (OSError, HTTPException) as error:
            problem = f"does not answer ({error or type(error).__name__})"
            raise unreachable(self.address, problem) from error
        # This look goes without a password: one that is asked for is none of its business.
        if status not in (HTTPStatus.OK, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise unreachable(self.address, f"answers /health with {status}")

    def connect(self) -> Namespace:
        """Return where the server shows the net, once that may be written, files included."""
        self.check()
        namespace = self.namespace()
        with self._explained("a trial of the artifact store"):
            self._try_artifacts(namespace)
        return namespace

    def namespace(self) -> Namespace:
        """Return the net's experiment and model, made or restored if need be."""
        with self._explained("the experiment"):
            return claim(self._client, self._net, self._coordinator)

    def page(self, namespace: Namespace) -> str:
        """Return the address of the page that lists the net's merges."""
        # Without the last part, MLflow 3 opens its pages for chats.
        page = f"#/experiments/{namespace.experiment_id}?workflowType=machine_learning"
        return f"{self._uri}/{page}"

    def log_merge(self, record: MergeRecord) -> str:
        """Show a merge as a run and return its id; logging it again changes nothing, or updates it.

        A run that an earlier, interrupted call left incomplete is completed. A merge that was
        rolled back since is the same run with another state.
        """
        namespace = self.namespace()
        with self._explained(f"merge {record.merge_id}"):
            runs = self._runs(namespace)
            run = runs.find(record.merge_id)
            if run is not None and run.data.tags.get(RECORD) == record_tag(record):
                return str(run.info.run_id)
            if run is not None and runs.contradicts(run, record):
                # The database was put back from a backup since: the number is another merge's now.
                self._client.delete_run(run.info.run_id)
                run = None
            run_id = str((run or runs.create(record)).info.run_id)
            self._write(runs, run_id, record, namespace)
            return run_id

    def restore(self, record: MergeRecord) -> tuple[Restored, str]:
        """Make or mend a merge's run where it is not as its record; return what, and the run's id.

        What cannot be changed in place (a parameter, a point too many) is logged as a new run, and
        the old one goes to MLflow's bin.
        """
        namespace = self.namespace()
        with self._explained(f"merge {record.merge_id}"):
            runs = self._runs(namespace)
            run = runs.find(record.merge_id)
            if run is None:
                return "made", self.log_merge(record)
            run_id = str(run.info.run_id)
            if self._is_complete(runs, run_id, record, namespace):
                return "unchanged", run_id
            if not runs.contradicts(run, record):
                self._write(runs, run_id, record, namespace)
                if self._is_complete(runs, run_id, record, namespace):
                    return "mended", run_id
            self._client.delete_run(run_id)
            return "mended", self.log_merge(record)

    def show_head(self, head: str | None, parent: str | None) -> None:
        """Let `current` name the head and `previous` its parent, by their commits' digests."""
        namespace = self.namespace()
        with self._explained("the aliases"):
            versions = self._versions(namespace)
            versions.point(CURRENT, head)
            versions.point(PREVIOUS, parent)

    def _try_artifacts(self, namespace: Namespace) -> None:
        """Write a small file and remove it again: a wrong artifact root is found at the start."""
        experiment = self._client.get_experiment(namespace.experiment_id)
        location = experiment.artifact_location
        with artifact_errors(location, namespace.name), scratch_folder(self._scratch) as folder:
            write_bytes(folder / TRIAL, b"Written by a Rootstock coordinator, to see if it can.\n")
            store = get_artifact_repository(location, tracking_uri=self._uri)
            store.log_artifact(str(folder / TRIAL))  # type: ignore[no-untyped-call]
            with suppress(Exception):  # a bucket that lets nobody delete is a good one
                store.delete_artifacts(TRIAL)  # type: ignore[no-untyped-call]

    def _runs(self, namespace: Namespace) -> Runs:
        return Runs(self._client, namespace, self._coordinator, self._scratch)

    def _versions(self, namespace: Namespace) -> Versions:
        return Versions(self._client, namespace, self._coordinator, self._scratch)

    def _write(self, runs: Runs, run_id: str, record: MergeRecord, namespace: Namespace) -> None:
        runs.write(run_id, record)
        self._versions(namespace).log(record, run_id)
        runs.finish(run_id, record)  # last: it marks the run as complete

    def _is_complete(
        self, runs: Runs, run_id: str, record: MergeRecord, namespace: Namespace
    ) -> bool:
        run = self._client.get_run(run_id)
        versions = self._versions(namespace)
        return runs.is_complete(run, record) and versions.is_complete(record, run_id)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            with mlflow_errors(self.address, f"{what} of net '{self._net}'"):
                yield
        except UnreachableError:
            self.check()  # says it in plainer words if nothing answers at all
            raise


def _signed_in(uri: str) -> str:
    """Return a server's address without name and password, which this process signs in with.

    MLflow's errors name the address that they are about.
    """
    parts = urlsplit(uri)
    if parts.username is not None:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

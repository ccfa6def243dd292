"""The history in MLflow: one experiment a net, one run a merge. A view of the registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from typing import Literal
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException

from rootstock.common.errors import ConfigurationError, ConflictError, UnreachableError
from rootstock.coordinator.history.content import EXPERIMENT, RECORD, record_tag
from rootstock.coordinator.history.record import MergeRecord
from rootstock.coordinator.history.runs import Runs
from rootstock.coordinator.history.server import health
from rootstock.coordinator.history.versions import CURRENT, PREVIOUS, Versions

CHECK_SECONDS = 5.0
"""How long a server may take to answer a health check; it takes milliseconds when it is well."""

Restored = Literal["made", "mended", "unchanged"]
"""What became of a merge's run when it was compared with the registry."""


class History:
    """Writes merges to an MLflow server. Calls block: use a thread from an event loop.

    The net names the experiment and the registered model. Every method raises UnreachableError if
    the server does not answer, and those that write ConflictError if it refuses what is logged.
    """

    def __init__(self, uri: str, net: str) -> None:
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(
                f"history.mlflow_uri = {uri!r}: needs the address of an MLflow server, "
                "such as http://127.0.0.1:5000"
            )
        self._uri = uri.rstrip("/")
        self._net = net
        self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        self._versions = Versions(self._client, net)

    def check(self) -> None:
        """Raise UnreachableError if the server does not answer within seconds, or is no MLflow."""
        try:
            status = health(self._uri, CHECK_SECONDS)
        except (OSError, HTTPException) as error:
            raise self._unreachable(f"does not answer ({error or type(error).__name__})") from error
        if status != HTTPStatus.OK:
            raise self._unreachable(f"answers /health with {status}")

    def ensure_experiment(self) -> str:
        """Return the id of the net's experiment; make it, or restore it if it was deleted."""
        tags = {
            "mlflow.experimentKind": "custom_model_development",  # else pages of chats come first
            "mlflow.note.content": EXPERIMENT,
        }
        with self._explained("the experiment"):
            experiment = self._client.get_experiment_by_name(self._net)
            if experiment is None:
                return str(self._client.create_experiment(self._net, tags=tags))
            if experiment.lifecycle_stage == LifecycleStage.DELETED:
                self._client.restore_experiment(experiment.experiment_id)
            for key, value in tags.items():
                if experiment.tags.get(key) != value:
                    self._client.set_experiment_tag(experiment.experiment_id, key, value)
            return str(experiment.experiment_id)

    def page(self) -> str:
        """Return the address of the page that lists the net's merges."""
        # Without the last part, MLflow 3 opens its pages for chats.
        experiment_id = self.ensure_experiment()
        return f"{self._uri}/#/experiments/{experiment_id}?workflowType=machine_learning"

    def log_merge(self, record: MergeRecord) -> str:
        """Show a merge as a run and return its id; logging it again changes nothing, or updates it.

        A run that an earlier, interrupted call left incomplete is completed. A merge that was
        rolled back since is the same run with another state.
        """
        experiment_id = self.ensure_experiment()
        with self._explained(f"merge {record.merge_id}"):
            runs = Runs(self._client, experiment_id)
            run = runs.find(record.merge_id)
            if run is not None and run.data.tags.get(RECORD) == record_tag(record):
                return str(run.info.run_id)
            run_id = str((run or runs.create(record)).info.run_id)
            self._write(runs, run_id, record, experiment_id)
            return run_id

    def restore(self, record: MergeRecord) -> tuple[Restored, str]:
        """Make or mend a merge's run where it is not as its record; return what, and the run's id.

        What cannot be changed in place (a parameter, a point too many) is logged as a new run, and
        the old one goes to MLflow's bin.
        """
        experiment_id = self.ensure_experiment()
        with self._explained(f"merge {record.merge_id}"):
            runs = Runs(self._client, experiment_id)
            run = runs.find(record.merge_id)
            if run is None:
                return "made", self.log_merge(record)
            run_id = str(run.info.run_id)
            if self._is_complete(runs, run_id, record):
                return "unchanged", run_id
            try:
                self._write(runs, run_id, record, experiment_id)
                mended = self._is_complete(runs, run_id, record)
            except MlflowException:
                self.check()
                mended = False
            if not mended:
                self._client.delete_run(run_id)
                run_id = self.log_merge(record)
            return "mended", run_id

    def show_head(self, head: str | None, parent: str | None) -> None:
        """Let `current` name the head and `previous` its parent, by their commits' digests."""
        with self._explained("the aliases"):
            self._versions.point(CURRENT, head)
            self._versions.point(PREVIOUS, parent)

    def _write(self, runs: Runs, run_id: str, record: MergeRecord, experiment_id: str) -> None:
        runs.write(run_id, record)
        self._versions.log(record, experiment_id, run_id)
        runs.finish(run_id, record)  # last: it marks the run as complete

    def _is_complete(self, runs: Runs, run_id: str, record: MergeRecord) -> bool:
        run = self._client.get_run(run_id)
        return runs.is_complete(run, record) and self._versions.is_complete(record, run_id)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn MLflow's one exception into ours: the server does not answer, or it refuses."""
        try:
            yield
        except MlflowException as error:
            self.check()
            raise ConflictError(
                f"MLflow at {self._uri} refused {what} of net {self._net!r}: {error}; make the "
                "history again: `rootstock coordinator history rebuild`"
            ) from error

    def _unreachable(self, problem: str) -> UnreachableError:
        port = urlsplit(self._uri).port or 5000
        return UnreachableError(
            f"MLflow at {self._uri} {problem}; start one (mlflow server --host 127.0.0.1 --port "
            f"{port}) or set history.mlflow_uri to one that runs"
        )

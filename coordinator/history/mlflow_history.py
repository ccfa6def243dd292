"""The history in MLflow: one experiment a net, one run a merge. A view; the ledger is the truth."""

from __future__ import annotations

import http.client
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from common.errors import ConfigurationError, ConflictError, UnreachableError
from coordinator.history.content import (
    MERGE_ID,
    RECORD,
    merge_tags,
    metrics,
    milliseconds,
    parameters,
)
from coordinator.history.merge_pictures import draw_merge
from coordinator.history.record import MergeRecord
from coordinator.history.versions import Versions

CHECK_SECONDS = 5.0
"""How long a server may take to say that it is well; it takes milliseconds when it is."""

BATCH = {"metrics": 1000, "params": 100, "tags": 100}
"""MLflow's caps on one call of log_batch."""


class History:
    """Writes merges to an MLflow server. Calls block: use a thread from an event loop.

    Parameters
    ----------
    uri
        The server, http(s)://host:port.
    net
        Names the experiment and the registered model.

    Raises
    ------
    ConfigurationError
        If the address has another form.
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
        """Ask the server whether it is well.

        Raises
        ------
        UnreachableError
            If it does not answer within seconds, or is no MLflow.
        """
        parts = urlsplit(self._uri)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        connection = kind(parts.hostname or "", parts.port, timeout=CHECK_SECONDS)
        try:
            connection.request("GET", parts.path + "/health")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(f"does not answer ({error or type(error).__name__})") from error
        finally:
            connection.close()
        if status != http.client.OK:
            raise self._unreachable(f"answers /health with {status}")

    def ensure_experiment(self) -> str:
        """Return the id of the net's experiment; make it, or bring it back if it was deleted.

        Raises
        ------
        UnreachableError
            If the server does not answer.
        """
        with self._explained("the experiment"):
            found = self._client.get_experiment_by_name(self._net)
            if found is None:
                return str(self._client.create_experiment(self._net))
            if found.lifecycle_stage == LifecycleStage.DELETED:
                self._client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)

    def log_merge(self, record: MergeRecord, pictures: Sequence[Path] | None = None) -> str:
        """Show a merge as a run; logging it again changes nothing, or brings it up to date.

        A run that an earlier, interrupted call left incomplete is completed.

        Parameters
        ----------
        record
            The merge.
        pictures
            Files to show with it; None draws the net and the errors.

        Returns
        -------
        str
            The run's id.

        Raises
        ------
        UnreachableError
            If the server does not answer.
        ConflictError
            If the server refuses what is logged.
        """
        experiment_id = self.ensure_experiment()
        digest = record.content_digest()
        with self._explained(f"merge {record.merge_id}"):
            run = self._find(experiment_id, record.merge_id)
            if run is None:
                run = self._client.create_run(
                    experiment_id,
                    start_time=milliseconds(record.created_at),
                    tags=merge_tags(record),
                    run_name=f"{record.category} → {record.task}",
                )
            run_id = str(run.info.run_id)
            if run.data.tags.get(RECORD) == digest:
                return run_id
            self._log_values(run_id, record)
            self._log_files(run_id, record, pictures)
            self._versions.log(record, experiment_id, run_id)
            self._client.set_terminated(
                run_id,
                status="FAILED" if record.state == "failed" else "FINISHED",
                end_time=milliseconds(record.finished_at or record.created_at),
            )
            self._client.set_tag(run_id, RECORD, digest)  # last: it says that all is there
            return run_id

    def _find(self, experiment_id: str, merge_id: str) -> Run | None:
        found = self._client.search_runs(
            [experiment_id], f"tags.`{MERGE_ID}` = '{merge_id}'", max_results=1
        )
        return found[0] if found else None

    def _log_values(self, run_id: str, record: MergeRecord) -> None:
        # One moment for all: the same point logged twice is then one point for MLflow.
        moment = milliseconds(record.finished_at or record.created_at)
        points = [Metric(p.key, p.value, moment, p.step) for p in metrics(record)]
        params = [Param(key, value) for key, value in parameters(record).items()]
        tags = [RunTag(key, value) for key, value in merge_tags(record).items()]
        for start in range(0, len(points), BATCH["metrics"]):
            self._client.log_batch(run_id, metrics=points[start : start + BATCH["metrics"]])
        for start in range(0, len(params), BATCH["params"]):
            self._client.log_batch(run_id, params=params[start : start + BATCH["params"]])
        for start in range(0, len(tags), BATCH["tags"]):
            self._client.log_batch(run_id, tags=tags[start : start + BATCH["tags"]])

    def _log_files(self, run_id: str, record: MergeRecord, pictures: Sequence[Path] | None) -> None:
        with tempfile.TemporaryDirectory(prefix="rootstock-") as name:
            folder = Path(name)
            if pictures is None:
                pictures = draw_merge(record, folder)
            for picture in pictures:
                self._client.log_artifact(run_id, str(picture))
            document = folder / "merge.json"
            document.write_bytes(record.canonical())
            self._client.log_artifact(run_id, str(document))

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn MLflow's one exception into ours: the server is gone, or it says no."""
        try:
            yield
        except MlflowException as error:
            self.check()
            raise ConflictError(
                f"MLflow at {self._uri} refused {what} of net {self._net!r}: {error}; mend or "
                "delete that entry there, then rebuild the history"
            ) from error

    def _unreachable(self, problem: str) -> UnreachableError:
        port = urlsplit(self._uri).port or 5000
        return UnreachableError(
            f"MLflow at {self._uri} {problem}; start one (mlflow server --host 127.0.0.1 --port "
            f"{port}) or set history.mlflow_uri to one that runs"
        )

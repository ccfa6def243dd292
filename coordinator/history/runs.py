"""Merges as MLflow runs: searches, writes and checks them."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from rootstock.coordinator.history.content import (
    COORDINATOR,
    MERGE_ID,
    RECORD,
    description,
    merge_tags,
    metrics,
    milliseconds,
    parameters,
    record_tag,
    run_name,
)
from rootstock.coordinator.history.errors import artifact_errors
from rootstock.coordinator.history.files import file_names, scratch_folder, write_files
from rootstock.coordinator.history.namespace import Namespace
from rootstock.coordinator.history.record import MergeRecord

BATCH = {"metrics": 1000, "params": 100, "tags": 100}
"""MLflow's caps on one call of log_batch."""

DATASET_DIGEST = 36
"""Characters of a data set's digest that MLflow keeps."""


class Runs:
    """The runs of one coordinator in its experiment.

    `scratch` is the folder for files on their way.
    """

    def __init__(
        self, client: MlflowClient, namespace: Namespace, coordinator: str, scratch: Path
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._coordinator = coordinator
        self._scratch = scratch

    def find(self, merge_id: str) -> Run | None:
        """Return a merge's run, if there is one that is not deleted.

        Every coordinator has a mrg-0001: another one's run of that id is none of this net's.
        """
        own = {MERGE_ID: merge_id, COORDINATOR: self._coordinator}
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in own.items())
        runs = self._client.search_runs([self._namespace.experiment_id], wanted, max_results=1)
        return runs[0] if runs else None

    def create(self, record: MergeRecord) -> Run:
        """Begin a merge's run."""
        return self._client.create_run(
            self._namespace.experiment_id,
            start_time=milliseconds(record.created_at),
            tags=merge_tags(record) | {COORDINATOR: self._coordinator},
            run_name=run_name(record),
        )

    def write(self, run_id: str, record: MergeRecord) -> None:
        """Log values, inputs and files; what a run has already stays as it is."""
        # One moment for all: the same point logged twice is then one point for MLflow.
        moment = milliseconds(record.finished_at or record.created_at)
        entries: dict[str, list[Any]] = {
            "params": [Param(key, value) for key, value in parameters(record).items()],
            "metrics": [Metric(p.key, p.value, moment, p.step) for p in metrics(record)],
            "tags": [RunTag(key, value) for key, value in self._tags(record).items()],
        }
        for kind, some in entries.items():
            for start in range(0, len(some), BATCH[kind]):
                batch: dict[str, Any] = {kind: some[start : start + BATCH[kind]]}
                self._client.log_batch(run_id, **batch)
        self._client.log_inputs(run_id, datasets=_datasets(record))
        with scratch_folder(self._scratch) as folder:
            write_files(record, folder)
            location = self._client.get_run(run_id).info.artifact_uri
            with artifact_errors(location or "?", self._namespace.name):
                self._client.log_artifacts(run_id, str(folder))

    def finish(self, run_id: str, record: MergeRecord) -> None:
        """End a run as its merge ended, and mark it as complete."""
        self._client.set_terminated(
            run_id,
            status="FAILED" if record.state == "failed" else "FINISHED",
            end_time=milliseconds(record.finished_at or record.created_at),
        )
        self._client.set_tag(run_id, RECORD, record_tag(record))

    def contradicts(self, run: Run, record: MergeRecord) -> bool:
        """Say whether a run has a parameter that the record has not, or otherwise.

        MLflow never changes a parameter.
        """
        return not run.data.params.items() <= parameters(record).items()

    def is_complete(self, run: Run, record: MergeRecord) -> bool:
        """Say whether a run shows all of a record: parameters, tags, every point, every file."""
        data = run.data
        if not (
            parameters(record).items() <= data.params.items()
            and self._tags(record).items() <= data.tags.items()
            and data.tags.get(RECORD) == record_tag(record)
        ):
            return False
        curves: dict[str, set[tuple[int, float]]] = defaultdict(set)
        for point in metrics(record):
            curves[point.key].add((point.step, point.value))
        return (
            curves.keys() <= data.metrics.keys()
            and all(points == self._points(run, key, len(points)) for key, points in curves.items())
            and file_names(record) <= self._files(run)
        )

    def _tags(self, record: MergeRecord) -> dict[str, str]:
        """Return a run's tags with those that MLflow's pages show apart."""
        return merge_tags(record) | {
            COORDINATOR: self._coordinator,
            "mlflow.runName": run_name(record),
            "mlflow.note.content": description(record),
            "mlflow.user": record.site,
            "mlflow.source.name": "rootstock coordinator",
            "mlflow.source.type": "LOCAL",
        }

    def _points(self, run: Run, key: str, count: int) -> set[tuple[int, float]]:
        if count == 1:
            return {(0, run.data.metrics[key])}
        history = self._client.get_metric_history(run.info.run_id, key)
        return {(point.step, point.value) for point in history}

    def _files(self, run: Run) -> set[str]:
        try:
            return {file.path for file in self._client.list_artifacts(run.info.run_id)}
        except MlflowException:  # the folder is missing
            return set()


def _datasets(record: MergeRecord) -> list[DatasetInput]:
    """Return what data a merge saw: the samples that a lab chose to share, if it did."""
    digest = record.digests.get("shared_samples")
    if digest is None:
        return []
    samples = Dataset(
        name=f"{record.site}: shared samples",
        digest=digest[:DATASET_DIGEST],
        source_type="rootstock",
        source=json.dumps({"sha256": digest}),
        profile=json.dumps({"images": record.numbers.get("few_samples")}),
    )
    return [DatasetInput(samples, [InputTag("mlflow.data.context", "few samples")])]

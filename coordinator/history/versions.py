"""Net versions in MLflow: a logged model, a registered version, aliases current and previous."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode

from coordinator.history.content import DIGEST, NUMBER, version_tags
from coordinator.history.record import MergeRecord

CURRENT = "current"
PREVIOUS = "previous"


class Versions:
    """The registered versions of one net."""

    def __init__(self, client: MlflowClient, net: str) -> None:
        self._client = client
        self._net = net

    def log(self, record: MergeRecord, experiment_id: str, run_id: str) -> None:
        """Show the net version that a merge committed; once, however often it is called."""
        if record.digest is None or record.number is None:
            return
        if self.of_number(record.number) is None:
            model_id = self._logged_model(record, experiment_id, run_id)
            self._register(record, run_id, model_id)
        self._point_aliases(record)

    def of_number(self, number: int) -> ModelVersion | None:
        """Return the registered version of a net version, if there is one."""
        found = self._client.search_model_versions(
            f"name = '{self._net}' and tag.`{NUMBER}` = '{number}'", max_results=1
        )
        return found[0] if found else None

    def _logged_model(self, record: MergeRecord, experiment_id: str, run_id: str) -> str:
        """Log the version as the run's output, with its parent as the run's input."""
        model_id = self._model_of(experiment_id, record.digest)
        if model_id is None:
            model = self._client.create_logged_model(
                experiment_id,
                name=f"{self._net}-v{record.number}",
                source_run_id=run_id,
                tags=version_tags(record),
                model_type="transplant net",
            )
            model_id = model.model_id
        # The weights stay in the store: MLflow gets the tree, which names each of them.
        with tempfile.TemporaryDirectory(prefix="rootstock-") as folder:
            text = b"{}" if record.tree is None else record.tree.canonical()
            Path(folder, "tree.json").write_bytes(text)
            self._client.log_model_artifacts(model_id, folder)
        self._client.finalize_logged_model(model_id, "READY")
        self._client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
        parent = self._model_of(experiment_id, record.parent_digest)
        if parent is not None:
            self._client.log_inputs(run_id, models=[LoggedModelInput(parent)])
        return model_id

    def _model_of(self, experiment_id: str, digest: str | None) -> str | None:
        if digest is None:
            return None
        found = self._client.search_logged_models(
            [experiment_id], filter_string=f"tags.`{DIGEST}` = '{digest}'", max_results=1
        )
        return str(found[0].model_id) if found else None

    def _register(self, record: MergeRecord, run_id: str, model_id: str) -> None:
        try:
            self._client.create_registered_model(self._net, description="A transplant net.")
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
        self._client.create_model_version(
            self._net,
            source=f"models:/{model_id}",
            run_id=run_id,
            tags=version_tags(record),
            description=f"Net version {record.number}: {record.category} → {record.task}.",
            await_creation_for=0,
            model_id=model_id,
        )

    def _point_aliases(self, record: MergeRecord) -> None:
        """Move the aliases; logging an old merge again leaves a newer `current` alone."""
        current = self._alias(CURRENT)
        if record.state == "rolled_back":
            if current == record.number:
                self._point(CURRENT, record.parent_number)
                self._point(PREVIOUS, None)
        elif current is None or current <= (record.number or 0):
            self._point(CURRENT, record.number)
            self._point(PREVIOUS, record.parent_number)

    def _alias(self, alias: str) -> int | None:
        try:
            version = self._client.get_model_version_by_alias(self._net, alias)
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST) or "alias" in str(error):
                return None
            raise
        return int(version.tags[NUMBER])

    def _point(self, alias: str, number: int | None) -> None:
        version = None if number is None else self.of_number(number)
        if version is None:
            self._client.delete_registered_model_alias(self._net, alias)
        else:
            self._client.set_registered_model_alias(self._net, alias, version.version)

"""Net versions in MLflow: a logged model, a registered version, aliases current and previous.

The lineage of a merge: the parent version and the lab's teacher net are its run's inputs as
logged models, its child version is the output. All weights stay in the store: MLflow gets digests.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelInput, LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode

from rootstock.coordinator.history.content import DIGEST, PREFIX, outcome, version_tags
from rootstock.coordinator.history.record import MergeRecord

CURRENT = "current"
PREVIOUS = "previous"

NET = (
    "A transplant net. Each version has every module and every join of the version before. "
    "The weights are in the coordinator's store, by the digests in a version's tree.json."
)

SUBMISSION = PREFIX + "submission"
"""Tag with the digest of a teacher net's manifest."""


class Versions:
    """The registered versions of one net."""

    def __init__(self, client: MlflowClient, net: str) -> None:
        self._client = client
        self._net = net

    def log(self, record: MergeRecord, experiment_id: str, run_id: str) -> None:
        """Show a merge's inputs and the net version that it committed, each once."""
        run = self._client.get_run(run_id)
        known = {model.model_id for model in run.inputs.model_inputs} if run.inputs else set()
        inputs = [self._teacher(record, experiment_id).model_id]
        parent = self._model(experiment_id, DIGEST, record.parent_digest)
        if parent is not None:
            inputs.append(parent.model_id)
        new = [LoggedModelInput(model_id) for model_id in inputs if model_id not in known]
        if new:
            self._client.log_inputs(run_id, models=new)
        if record.digest is None:
            return
        child = self._child(record, experiment_id, run_id)
        out = {model.model_id for model in run.outputs.model_outputs} if run.outputs else set()
        if child.model_id not in out:
            self._client.log_outputs(run_id, [LoggedModelOutput(child.model_id, step=0)])
        self._register(record, run_id, child.model_id)

    def is_complete(self, record: MergeRecord, run_id: str) -> bool:
        """Say whether the registry shows a merge's net version as it is, from that run."""
        version = self.of_digest(record.digest)
        if record.digest is None or version is None:
            return record.digest is None
        wanted = version_tags(record).items()
        return version.run_id == run_id and wanted <= version.tags.items()

    def of_digest(self, digest: str | None) -> ModelVersion | None:
        """Return the registered version of a net version, if there is one."""
        if digest is None:
            return None
        versions = self._client.search_model_versions(
            f"name = '{self._net}' and tag.`{DIGEST}` = '{digest}'", max_results=1
        )
        return versions[0] if versions else None

    def point(self, alias: str, digest: str | None) -> None:
        """Let an alias name a net version; None, or one that is not registered, deletes it."""
        version = self.of_digest(digest)
        try:
            if version is not None:
                self._client.set_registered_model_alias(self._net, alias, version.version)
            else:
                self._client.delete_registered_model_alias(self._net, alias)
        except MlflowException as error:
            # Where nothing was registered yet there is nothing to delete.
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise

    def _teacher(self, record: MergeRecord, experiment_id: str) -> LoggedModel:
        """Show a lab's teacher net; all tasks of a submission share it."""
        submission = record.digests.get("manifest")
        known = self._model(experiment_id, SUBMISSION, submission)
        if known is not None:
            return known
        roles = ("manifest", "category_module", "teacher_task_module")
        tags = {f"{PREFIX}digest.{r}": record.digests[r] for r in roles if r in record.digests}
        tags |= {f"{PREFIX}site": record.site, f"{PREFIX}category": record.category}
        tags |= {SUBMISSION: submission} if submission else {}
        model = self._client.create_logged_model(
            experiment_id,
            name=_model_name(f"{record.site}-{record.category}"),
            model_type="teacher net",
            tags=tags,
        )
        return self._client.finalize_logged_model(model.model_id, "READY")

    def _child(self, record: MergeRecord, experiment_id: str, run_id: str) -> LoggedModel:
        known = self._model(experiment_id, DIGEST, record.digest)
        if known is not None:  # also of a run that was deleted: later runs name it as an input
            return known
        model = self._client.create_logged_model(
            experiment_id,
            name=_model_name(f"{self._net}-v{record.number}"),
            model_type="transplant net",
            tags=version_tags(record),
            source_run_id=run_id,
        )
        with tempfile.TemporaryDirectory(prefix="rootstock-") as folder:
            tree = b"{}" if record.tree is None else record.tree.canonical()
            Path(folder, "tree.json").write_bytes(tree)
            self._client.log_model_artifacts(model.model_id, folder)
        return self._client.finalize_logged_model(model.model_id, "READY")

    def _model(self, experiment_id: str, tag: str, digest: str | None) -> LoggedModel | None:
        if digest is None:
            return None
        models = self._client.search_logged_models(
            [experiment_id], filter_string=f"tags.`{tag}` = '{digest}'", max_results=1
        )
        return models[0] if models else None

    def _register(self, record: MergeRecord, run_id: str, model_id: str) -> None:
        version = self.of_digest(record.digest)
        description = f"{record.join}, from {record.site}. {outcome(record)}"
        if version is not None and version.run_id == run_id:
            for key, value in version_tags(record).items():
                if version.tags.get(key) != value:
                    self._client.set_model_version_tag(self._net, version.version, key, value)
            self._client.update_model_version(self._net, version.version, description)
            return
        if version is not None:
            self._client.delete_model_version(self._net, version.version)
        try:
            self._client.create_registered_model(self._net, description=NET)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
        self._client.create_model_version(
            self._net,
            source=f"models:/{model_id}",
            run_id=run_id,
            tags=version_tags(record),
            description=description,
            await_creation_for=0,
            model_id=model_id,
        )


def _model_name(name: str) -> str:
    return name.replace(".", "-")  # MLflow allows no dot here

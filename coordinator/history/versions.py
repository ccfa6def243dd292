"""Net versions in MLflow: a logged model, a registered version, aliases current and previous.

The lineage of a merge: the parent version and the lab's teacher net are its run's inputs as
logged models, its child version is the output. All weights stay in the store: MLflow gets digests.
"""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelInput, LoggedModelOutput, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion

from rootstock.common.files import write_bytes
from rootstock.coordinator.history.content import COORDINATOR, DIGEST, PREFIX, outcome, version_tags
from rootstock.coordinator.history.errors import artifact_errors
from rootstock.coordinator.history.files import scratch_folder
from rootstock.coordinator.history.namespace import Namespace
from rootstock.coordinator.history.record import MergeRecord

CURRENT = "current"
PREVIOUS = "previous"

SUBMISSION = PREFIX + "submission"
"""Tag with the digest of a teacher net's manifest."""


class Versions:
    """The registered versions of one coordinator's net; its experiment has the model's name."""

    def __init__(
        self, client: MlflowClient, namespace: Namespace, coordinator: str, scratch: Path
    ) -> None:
        self._client = client
        self._model_name, self._experiment_id = namespace
        self._own = {COORDINATOR: coordinator}
        self._scratch = scratch

    def log(self, record: MergeRecord, run_id: str) -> None:
        """Show a merge's inputs and the net version that it committed, each once."""
        run = self._client.get_run(run_id)
        known = {model.model_id for model in run.inputs.model_inputs} if run.inputs else set()
        inputs = [self._teacher(record).model_id]
        parent = self._model(DIGEST, record.parent_digest)
        if parent is not None:
            inputs.append(parent.model_id)
        new = [LoggedModelInput(model_id) for model_id in inputs if model_id not in known]
        if new:
            self._client.log_inputs(run_id, models=new)
        if record.digest is None:
            return
        child = self._child(record, run_id)
        out = {model.model_id for model in run.outputs.model_outputs} if run.outputs else set()
        if child.model_id not in out:
            self._client.log_outputs(run_id, [LoggedModelOutput(child.model_id, step=0)])
        self._register(record, run_id, child.model_id)

    def is_complete(self, record: MergeRecord, run_id: str) -> bool:
        """Say whether the registry shows a merge's net version as it is, from that run."""
        version = self.of_digest(record.digest)
        if record.digest is None or version is None:
            return record.digest is None
        wanted = self._tags(record).items()
        return version.run_id == run_id and wanted <= version.tags.items()

    def of_digest(self, digest: str | None) -> ModelVersion | None:
        """Return the registered version of a net version, if there is one."""
        if digest is None:
            return None
        versions = self._client.search_model_versions(
            f"name = '{self._model_name}' and tag.`{DIGEST}` = '{digest}'", max_results=1
        )
        return versions[0] if versions else None

    def point(self, alias: str, digest: str | None) -> None:
        """Let an alias name a net version; None, or one that is not registered, deletes it."""
        version = self.of_digest(digest)
        if version is not None:
            self._client.set_registered_model_alias(self._model_name, alias, version.version)
        else:
            self._client.delete_registered_model_alias(self._model_name, alias)

    def _tags(self, record: MergeRecord) -> dict[str, str]:
        return version_tags(record) | self._own

    def _teacher(self, record: MergeRecord) -> LoggedModel:
        """Show a lab's teacher net; all tasks of a submission share it."""
        submission = record.digests.get("manifest")
        known = self._model(SUBMISSION, submission)
        if known is not None:
            return self._ready(known)
        roles = ("manifest", "category_module", "teacher_task_module")
        tags = {f"{PREFIX}digest.{r}": record.digests[r] for r in roles if r in record.digests}
        tags |= {f"{PREFIX}site": record.site, f"{PREFIX}category": record.category}
        tags |= self._own | ({SUBMISSION: submission} if submission else {})
        model = self._client.create_logged_model(
            self._experiment_id,
            name=_model_name(f"{record.site}-{record.category}"),
            model_type="teacher net",
            tags=tags,
        )
        return self._ready(model)

    def _child(self, record: MergeRecord, run_id: str) -> LoggedModel:
        # Also of a run that was deleted: later runs name it as an input.
        model = self._model(DIGEST, record.digest) or self._client.create_logged_model(
            self._experiment_id,
            name=_model_name(f"{record.net}-v{record.number}"),
            model_type="transplant net",
            tags=self._tags(record),
            source_run_id=run_id,
        )
        if model.status == LoggedModelStatus.READY:
            return model
        with scratch_folder(self._scratch) as folder:
            tree = b"{}" if record.tree is None else record.tree.canonical()
            write_bytes(folder / "tree.json", tree)
            with artifact_errors(model.artifact_location, self._model_name):
                self._client.log_model_artifacts(model.model_id, str(folder))
        return self._ready(model)

    def _ready(self, model: LoggedModel) -> LoggedModel:
        """Mark a logged model as whole, unless it is marked."""
        if model.status == LoggedModelStatus.READY:
            return model
        return self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)

    def _model(self, tag: str, digest: str | None) -> LoggedModel | None:
        if digest is None:
            return None
        models = self._client.search_logged_models(
            [self._experiment_id], filter_string=f"tags.`{tag}` = '{digest}'", max_results=1
        )
        return models[0] if models else None

    def _register(self, record: MergeRecord, run_id: str, model_id: str) -> None:
        name, version = self._model_name, self.of_digest(record.digest)
        description = f"{record.join}, from {record.site}. {outcome(record)}"
        if version is not None and version.run_id == run_id:
            for key, value in self._tags(record).items():
                if version.tags.get(key) != value:
                    self._client.set_model_version_tag(name, version.version, key, value)
            self._client.update_model_version(name, version.version, description)
            return
        if version is not None:
            self._client.delete_model_version(name, version.version)
        self._client.create_model_version(
            name,
            source=f"models:/{model_id}",
            run_id=run_id,
            tags=self._tags(record),
            description=description,
            await_creation_for=0,
            model_id=model_id,
        )


def _model_name(name: str) -> str:
    return name.replace(".", "-")  # MLflow allows no dot here

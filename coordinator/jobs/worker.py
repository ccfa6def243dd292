"""One transplant from its blobs to its adapters, in pieces with a checkpoint after each. No Ray."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from common.artifacts.store import open_store
from common.distillation.back_distillation import BackDistillation, BackDistillationSettings
from common.distillation.biases import bias_from_means
from common.distillation.closed_form import closed_form
from common.errors import ConflictError, TransplantError
from common.nets.adapter import Adapter
from common.weights import safetensors_io
from common.weights.manifest import AdapterEntry
from coordinator.jobs import checkpoint as checkpoints
from coordinator.jobs.checkpoint import put_tensors
from coordinator.jobs.material import Material
from coordinator.jobs.model import CurvePoint, JobResult, Progress, Stage, TransplantJob

CURVE_POINTS = 200
"""Points of a stage's curve: enough to look at, whatever the number of steps."""

CPU = torch.device("cpu")


class TransplantWorker:
    """Carries one job. The same job gives the same bits, in one go or in many pieces.

    Parameters
    ----------
    job
        What to do. If a checkpoint of the same job is in the store, the worker goes on from there.
    device
        Where to compute.

    Raises
    ------
    NotFoundError, SchemaError, IntegrityError
        If a blob is missing or is not what its entry says.
    TransplantError
        If the modules do not fit.
    """

    def __init__(self, job: TransplantJob, device: torch.device = CPU) -> None:
        self._job = job
        # A folder store has no copies; the job's schema asks for a cache where one is needed.
        self._store = open_store(job.artifacts, Path(job.cache or job.artifacts))
        self._device = device
        self._at = checkpoints.load(self._store, job)
        self._material: Material | None = None
        self._learning: BackDistillation | None = None

    @property
    def done(self) -> bool:
        """Whether both stages are done, or the one that there is."""
        return self._at.zero_sample is not None and (
            self._at.few_sample is not None or not self._has_few_sample_stage
        )

    def advance(self) -> Progress:
        """Do the next piece of work: the closed form, or up to `checkpoint_steps` steps.

        When it returns, a checkpoint is durable. Of a job that is done it does nothing.

        Raises
        ------
        TransplantError
            If the maths has no answer.
        StorageError
            If the store is full or broken.
        """
        if not self.done:
            started = time.perf_counter()
            stage: Stage = "few-sample"
            if self._at.zero_sample is None:
                stage = "zero-sample"
                changes = self._solve()
            else:
                changes = self._learn()
            seconds = dict(self._at.seconds)
            seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started
            self._at = self._at.model_copy(update={**changes, "seconds": seconds})
            checkpoints.save(self._store, self._job.merge_id, self._at)
        return self._progress()

    def result(self) -> JobResult:
        """Return what was learned.

        Raises
        ------
        ConflictError
            If the job is not done.
        """
        if not self.done or self._at.zero_sample is None:
            raise ConflictError(f"merge {self._job.merge_id}: its job is not done; advance it")
        return JobResult(
            zero_sample=self._at.zero_sample,
            few_sample=self._at.few_sample,
            curves=self._at.curves,
            seconds=self._at.seconds,
            report=self._at.report,
            settings=self._job.settings,
        )

    @property
    def _has_few_sample_stage(self) -> bool:
        return self._job.samples is not None and self._job.settings.steps > 0

    def _progress(self) -> Progress:
        if self._has_few_sample_stage and self._at.step > 0:
            steps = self._job.settings.steps
            return Progress(stage="few-sample", step=self._at.step, steps=steps, done=self.done)
        return Progress(stage="zero-sample", step=1, steps=1, done=self.done)

    def _read(self) -> Material:
        if self._material is None:
            self._material = Material.of(self._job, self._store, self._device)
        return self._material

    def _solve(self) -> dict[str, object]:
        """Zero-sample: the normal equations (METHODS 1b, 1c), biases from means (1d)."""
        material, settings = self._read(), self._job.settings
        adapter, report = closed_form(
            material.problem,
            material.spec,
            policy=settings.policy,
            draws=settings.draws,
            ridge=settings.ridge,
            seed=settings.seed,
        )
        if material.means is not None:
            bias_from_means(adapter, *material.means)
        numbers = {f"solver/{name}": value for name, value in report.numbers().items()}
        numbers["solver/beta"] = material.problem.beta
        numbers["solver/biases_from_means"] = float(material.means is not None)
        return {"zero_sample": self._put(adapter), "report": numbers}

    def _learn(self) -> dict[str, object]:
        """Few-sample: steps of Eq. 3 from the zero-sample adapter on."""
        learning = self._learning or self._resumed()
        self._learning = learning
        steps = self._job.settings.steps
        every = max(1, steps // CURVE_POINTS)
        curves = list(self._at.curves)
        step = self._at.step
        while not learning.done and step < self._at.step + self._job.checkpoint_steps:
            record = learning.step()
            step = record.step
            if step % every == 0 or step in (1, steps):
                curves.append(
                    CurvePoint(
                        stage="few-sample",
                        step=step,
                        loss=record.loss,
                        task_loss=record.task_loss,
                        distillation_loss=record.distillation_loss,
                    )
                )
        changes: dict[str, object] = {"step": step, "curves": tuple(curves)}
        if learning.done:
            return changes | {"few_sample": self._put(learning.adapter), "state": None}
        return changes | {"state": put_tensors(self._store, learning.state())}

    def _resumed(self) -> BackDistillation:
        assert self._at.zero_sample is not None  # noqa: S101  # the stage before this one
        assert self._job.samples is not None  # noqa: S101  # else there is no such stage
        material, settings = self._read(), self._job.settings
        entry = self._at.zero_sample
        adapter = Adapter(entry.spec)
        safetensors_io.load_module(adapter, self._store.local_path(entry.blob.digest), entry.blob)
        learning = BackDistillation(
            material.problem,
            adapter.to(self._device),
            material.samples(self._store, self._job.samples),
            BackDistillationSettings(
                steps=settings.steps,
                learning_rate=settings.learning_rate,
                policy=settings.policy,
                seed=settings.seed,
            ),
        )
        state = self._at.state
        if state is not None:
            path = self._store.local_path(state.digest)
            learning.restore(
                {
                    # Random state stays on the CPU, whatever the device.
                    name: tensor if name == "generator" else tensor.to(self._device)
                    for name, tensor in safetensors_io.read(path, state).items()
                }
            )
        return learning

    def _put(self, adapter: Adapter) -> AdapterEntry:
        bad = [name for name, t in adapter.state_dict().items() if not bool(t.isfinite().all())]
        if bad:
            raise TransplantError(
                f"merge {self._job.merge_id}: the learned adapter's {bad[0]} is not finite; the "
                "teacher net's weights are too large or too small to be joined: train it again"
            )
        return AdapterEntry(spec=adapter.spec, blob=put_tensors(self._store, adapter.state_dict()))

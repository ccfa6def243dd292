"""Carries one transplant from its blobs to its adapters, a checkpoint after each piece. No Ray."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch

from rootstock.common.artifacts.uri import open_store
from rootstock.common.distillation.auto.learning import AutoLearning
from rootstock.common.distillation.methods import method_named
from rootstock.common.distillation.solvers.learning import Learning
from rootstock.common.errors import ConflictError, TransplantError
from rootstock.common.failpoints import failpoint
from rootstock.common.nets.adapter import Adapter
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import AdapterEntry
from rootstock.coordinator.jobs import checkpoint as checkpoints
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.jobs.material import Material, read_samples
from rootstock.coordinator.jobs.model import (
    CurvePoint,
    JobResult,
    Progress,
    Stage,
    TransplantJob,
    flat_settings,
)
from rootstock.coordinator.paths import job_area

CURVE_POINTS = 200
"""Points of a stage's curve: enough to look at, whatever the number of steps."""

FALLBACKS: dict[Stage, str] = {"zero-sample": "closed-form", "few-sample": "back-distill"}
"""What a stage falls back to when its method has no answer: neither needs statistics or a dream."""

CPU = torch.device("cpu")


class TransplantWorker:
    """Carries one job. The same job gives the same bits, in one go or in many pieces.

    If a checkpoint of the same job is in the store, the worker goes on from there.
    """

    def __init__(self, job: TransplantJob, device: torch.device = CPU) -> None:
        self._job = job
        # A folder store has no copies; the job's schema asks for a cache where one is needed.
        self._store = open_store(job.artifacts, Path(job.cache or job.artifacts), began=True)
        self._device = device
        self._area = self._store.area(job_area(job.merge_id))
        self._at = checkpoints.load(self._area, job)
        self._learning: Learning | None = None
        self._steps = 1

    @property
    def done(self) -> bool:
        """Whether both stages are done, or the one that there is."""
        return self._at.zero_sample is not None and (
            self._at.few_sample is not None or not self._has_few_sample_stage
        )

    def advance(self) -> Progress:
        """Do the next piece of work: up to `checkpoint_steps` steps of one stage.

        When it returns, a checkpoint is durable. A job that is done stays as it is. A method that
        has no answer is given up for its stage's fallback, and the reason is kept; TransplantError
        if the fallback has none either, or the modules do not fit.
        """
        stage = self._stage
        if not self.done:
            started = time.perf_counter()
            changes = self._learn(stage)
            seconds = dict(self._at.seconds)
            seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started
            before = self._at
            self._at = before.model_copy(update={**changes, "seconds": seconds})
            checkpoints.save(self._area, self._at, before)
            failpoint("job.checkpointed")
        step, steps = self._at.step, self._steps
        if stage == "zero-sample" and self._at.zero_sample is not None:
            step = steps  # of the next stage no step is taken yet
        return Progress(stage=stage, step=step, steps=max(step, steps), done=self.done)

    def result(self) -> JobResult:
        """Return what was learned, and copy it from the job's area to the store's blobs."""
        if not self.done or self._at.zero_sample is None:
            raise ConflictError(f"merge {self._job.merge_id}: its job is not done; advance it")
        stages: list[Stage] = ["zero-sample"]
        if self._at.few_sample is not None:
            stages.append("few-sample")
        for adapter in filter(None, (self._at.zero_sample, self._at.few_sample)):
            digest = adapter.blob.digest
            self._store.put_file(self._area.local_path(digest), digest, verified=True)
        failpoint("job.ended")
        return JobResult(
            zero_sample=self._at.zero_sample,
            few_sample=self._at.few_sample,
            student_task_module=self._job.student_task_module.digest,
            curves=self._at.curves,
            seconds=self._at.seconds,
            report=self._at.report,
            methods={stage: self._method(stage) for stage in stages},
            fallbacks=self._at.fallbacks,
            without=self._at.without,
            settings=flat_settings(self._job.settings.model_dump(mode="json")),
        )

    @cached_property
    def _material(self) -> Material:
        return Material.of(self._job, self._store, self._device)

    @property
    def _has_few_sample_stage(self) -> bool:
        given = self._job.samples is not None or self._job.own_samples is not None
        return given and self._job.settings.steps > 0

    @property
    def _stage(self) -> Stage:
        """The present stage; of a job that is done, its last."""
        if self._at.zero_sample is None or not self._has_few_sample_stage:
            return "zero-sample"
        return "few-sample"

    def _method(self, stage: Stage) -> str:
        settings = self._job.settings
        if stage in self._at.fallbacks:
            return FALLBACKS[stage]
        return settings.zero_sample_method if stage == "zero-sample" else settings.few_sample_method

    def _learn(self, stage: Stage) -> dict[str, object]:
        """Take a stage's next steps, or give its method up; return what changes."""
        material = self._material  # modules that do not fit have no fallback
        curves = list(self._at.curves)
        try:
            learning = self._learning = self._learning or self._begin(stage, material)
            step = self._take_steps(learning, stage, curves)
            self._steps = max(1, learning.steps)  # a method that takes none counts as one
            if not learning.done:
                state = put_tensors(self._area, learning.state())
                return {"step": step, "curves": tuple(curves), "state": state}
            adapter = self._put(learning.adapter)
        except TransplantError as error:
            return self._fall_back(stage, error)
        self._learning = None
        numbers = {
            "solver/beta": material.without_samples.problem.beta,
            "solver/biases_from_means": float(material.without_samples.means is not None),
            **{f"{stage}/{name}": value for name, value in learning.report.items()},
        }
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        changes: dict[str, object] = {
            "curves": tuple(curves),
            "state": None,
            "report": {**self._at.report, **finite},
        }
        if learning.without:
            changes["without"] = {**self._at.without, stage: learning.without}
        if stage == "few-sample":
            return changes | {"step": step, "few_sample": adapter}
        dreamed = {k: v for k, v in learning.state().items() if k.startswith("dream/")}
        return changes | {
            "step": 0,
            "zero_sample": adapter,
            "dream": put_tensors(self._area, dreamed) if dreamed else None,
        }

    def _take_steps(self, learning: Learning, stage: Stage, curves: list[CurvePoint]) -> int:
        """Take up to `checkpoint_steps` steps; return the last one's number."""
        step = self._at.step
        for _ in range(self._job.checkpoint_steps):
            if learning.done:
                break
            record = learning.step()
            step, last = record.step, learning.steps
            every = max(1, last // CURVE_POINTS)
            if step % every == 0 or step in (1, last):
                curves.append(CurvePoint(stage=stage, **asdict(record)))
        return step

    def _begin(self, stage: Stage, material: Material) -> Learning:
        """Begin a stage's method, or resume it where the last checkpoint left it."""
        job = self._job
        samples = read_samples(self._store, job) if stage == "few-sample" else None
        transplant = material.transplant(samples)
        learning = method_named(self._method(stage)).begin(
            transplant, job.settings.method_settings()
        )
        state = self._at.state
        if state is None and isinstance(learning, AutoLearning) and not learning.done:
            state = self._at.dream  # the same dream in both stages
        if state is not None:
            path = self._area.local_path(state.digest)
            learning.restore(
                {
                    # Random state stays on the CPU, whatever the device.
                    name: tensor if name.endswith("generator") else tensor.to(self._device)
                    for name, tensor in safetensors_io.read(path, state).items()
                }
            )
        return learning

    def _fall_back(self, stage: Stage, error: TransplantError) -> dict[str, object]:
        """Give a stage's method up for its fallback, and keep the reason."""
        given_up = self._method(stage)
        if given_up == FALLBACKS[stage]:
            raise error
        self._learning = None
        reason = f"{given_up}: {error}"
        for why in (self._material.no_source, self._material.no_moments):
            reason += f" ({why})" if why else ""
        fallbacks = {**self._at.fallbacks, stage: reason}
        # Losses of two methods do not make one curve.
        curves = tuple(point for point in self._at.curves if point.stage != stage)
        return {"fallbacks": fallbacks, "step": 0, "state": None, "curves": curves}

    def _put(self, adapter: Adapter) -> AdapterEntry:
        bad = [name for name, t in adapter.state_dict().items() if not bool(t.isfinite().all())]
        if bad:
            raise TransplantError(
                f"merge {self._job.merge_id}: the learned adapter's {bad[0]} is not finite; the "
                "teacher net's weights are too large or too small to be joined: train it again"
            )
        return AdapterEntry(spec=adapter.spec, blob=put_tensors(self._area, adapter.state_dict()))

"""What the N-th merge costs a coordinator: seconds, bytes written, database queries.

Everything but the learning and MLflow is real: signed submissions over the registry, admission,
growth, a transplant job (the method `identity`, which takes no step), the question to the lab, its
report, the commit with its probe. Labs send weights that differ in every blob, as labs' do.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy
import structlog
import tomli_w
import torch
from rich.console import Console
from rich.progress import Progress as Bar
from sqlalchemy.engine import Engine

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.identity.keys import SigningKey, key_id, load_or_create
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec
from rootstock.common.provenance.statements import sign_manifest
from rootstock.common.weights.manifest import BlobEntry, Recipe, TeacherManifest
from rootstock.coordinator.config import (
    AcceptanceConfig,
    CoordinatorConfig,
    DistillationConfig,
    EvaluationConfig,
    PlanConfig,
    WitnessesConfig,
)
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.merges.commit import Committer
from rootstock.coordinator.merges.reconciler import Reconciler
from rootstock.coordinator.merges.runner import MergeRunner
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.plan.heads import HeadsFile
from rootstock.coordinator.plan.publish import publish_plan
from rootstock.coordinator.registry import MergeState, Receipt, Registry, Submission
from rootstock.coordinator.registry.wait import setting
from rootstock.coordinator.service.messages import evaluation_report, evaluation_request
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from tests.support.in_process_jobs import InThisProcess

SIZES = (5, 50, 500)
REPEATS = 5
"""Merges that a figure is the median of: those that lead up to a size."""
FLAT = 1.5
"""How much more the merge at the largest size may cost than at the smallest."""
ARCHITECTURE = ArchitectureSpec(name="small-vgg", settings={"width": 16}, split="pool2")
TASK = TaskSpec(name="classification")


def measure(sizes: tuple[int, ...], console: Console) -> dict[str, Any]:
    """Return the rows of `bench growth --json` (DESIGN section 8), and ratios of last to first."""
    torch.set_num_threads(1)
    # One line a merge would drown the figures.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(prefix="rootstock-bench-") as name:
        net = _Net(Path(name))
        rows = []
        try:
            with Bar(console=console, transient=True) as bar:
                task = bar.add_task("merges", total=sizes[-1])
                costs: list[_Cost] = []
                for number in range(1, sizes[-1] + 1):
                    costs.append(net.grow(f"category-{number:04d}"))
                    bar.advance(task)
                    if number in sizes:
                        rows.append(_row(number, costs[-REPEATS:], net.show_seconds()))
        finally:
            net.close()
    first, last = rows[0], rows[-1]
    keys = ("merge_seconds", "bytes_written", "queries")
    return {"rows": rows, "ratios": {key: round(last[key] / first[key], 2) for key in keys}}


@dataclass(frozen=True)
class _Cost:
    seconds: float
    written: int
    queries: int
    blobs: int


def _row(categories: int, costs: list[_Cost], show_seconds: float) -> dict[str, Any]:
    def median(values: list[float]) -> float:
        return sorted(values)[len(values) // 2]

    return {
        "categories": categories,
        "merge_seconds": round(median([cost.seconds for cost in costs]), 4),
        "bytes_written": int(median([cost.written for cost in costs])),
        "blob_bytes": int(median([cost.blobs for cost in costs])),
        "queries": int(median([cost.queries for cost in costs])),
        "show_seconds": round(show_seconds, 3),
    }


class _Net:
    """A coordinator's state folder and the labs that feed it."""

    def __init__(self, folder: Path) -> None:
        self._config = CoordinatorConfig(
            net="bench",
            state=folder / "state",
            plan=PlanConfig(architecture=ARCHITECTURE, tasks=(TASK,)),
            distillation=DistillationConfig(zero_sample_method="identity"),
            acceptance=AcceptanceConfig(
                max_error=100.0, max_above_teacher=100.0, first="rule", min_samples=0
            ),
            witnesses=WitnessesConfig(number=0),
            evaluation=EvaluationConfig(refine=False),
        )
        paths = StatePaths(self._config)
        paths.state.mkdir(parents=True)
        self._toml = folder / "coordinator.toml"
        self._toml.write_text(
            tomli_w.dumps(self._config.model_dump(mode="json", exclude_none=True)), "utf-8"
        )
        self._registry = Registry(paths.database)
        store = LocalStore(Path(paths.artifacts))
        self._context = CoordinatorContext(
            registry=self._registry,
            store=store,
            plan=publish_plan(self._config, store, paths.plan),
            key=load_or_create(paths.key),
            config=self._config,
        )
        self._paths = paths
        self._key = SigningKey.generate()
        self._weights = initial_modules(ARCHITECTURE, [TASK], seed=0)

    def close(self) -> None:
        self._registry.close()

    def grow(self, category: str) -> _Cost:
        """Bring one more category in, from its manifest to its net version."""
        manifest = self._manifest(category)
        with _queries() as queries:
            written, began = _written(), time.perf_counter()
            submission = self._receive(manifest)
            asyncio.run(self._reconcile(submission))
            seconds = time.perf_counter() - began
            written = _written() - written
        return _Cost(seconds, written, len(queries), sum(e.size for e in manifest.blobs()))

    def show_seconds(self) -> float:
        """Time `rootstock net show` as a whole process."""
        command = [sys.executable, "-m", "rootstock.deploy.cli.main", "net", "show", "--json"]
        began = time.perf_counter()
        shown = subprocess.run(  # our own command line
            [*command, "--config", str(self._toml)], check=True, capture_output=True
        )
        seconds = time.perf_counter() - began
        json.loads(shown.stdout)
        return seconds

    def _manifest(self, category: str) -> TeacherManifest:
        """Return a teacher whose every blob is a new one."""
        f, heads = self._weights
        store = self._context.store

        def shifted(module: torch.nn.Module) -> BlobEntry:
            weights = {
                key: value + 1e-3 * torch.randn_like(value)
                for key, value in module.state_dict().items()
            }
            return put_tensors(store, weights)

        return TeacherManifest(
            site="lab",
            category=category,
            architecture=ARCHITECTURE,
            category_module=shifted(f),
            task_modules={TASK.name: shifted(heads[TASK.name])},
            metrics={f"error/{TASK.name}": 5.0},
            recipe=Recipe(name="supervised"),
            plan=self._context.plan.content_digest(),
        )

    def _receive(self, manifest: TeacherManifest) -> Submission:
        registry, document = self._registry, manifest.canonical()
        registry.sites.join(manifest.site, self._key.public_key)
        self._context.store.put_bytes(document)
        signature = sign_manifest(self._key, document, key_id(self._context.key.public_key))
        upload = registry.uploads.begin(manifest, document, signature, open_limit=4)
        receipt = Receipt(upload.manifest_digest, upload.id, "2026-01-01T00:00:00+00:00", b"-")
        registry.uploads.receive(upload.id, receipt)
        return registry.submissions.get(upload.id)

    async def _reconcile(self, submission: Submission) -> None:
        """Run a reconciler until the submission's merge has ended, answering as the lab would."""
        context = self._context
        runner = MergeRunner(context, Committer(context), InThisProcess())
        reconciler = Reconciler(
            context,
            runner,
            HeadsFile(self._paths.heads),
            1.0,
        )
        news = asyncio.Event()
        work = asyncio.create_task(reconciler.run())
        try:
            with setting(news, self._registry, lambda _: True):
                while True:
                    await news.wait()
                    news.clear()
                    merge = next(iter(self._registry.merges.of_submission(submission.id)), None)
                    if merge is None:
                        continue
                    if merge.state is MergeState.EVALUATING:
                        self._report(merge.id)
                    elif merge.state is MergeState.MERGED:
                        return
                    elif merge.state in (MergeState.FAILED, MergeState.REJECTED):
                        raise AssertionError(merge.reason)
        finally:
            work.cancel()
            await asyncio.wait({work})

    def _report(self, merge_id: str) -> None:
        evaluation = self._registry.evaluations.of_merge(merge_id)
        if evaluation is None or evaluation.report is not None:
            return
        asked = evaluation_request(evaluation.request)
        results = [
            pb.CandidateResult(name=candidate.name, error=20.0, samples=100)
            for candidate in asked.candidates
        ]
        report = pb.ReportEvaluationRequest(evaluation_id=evaluation.id, results=results)
        self._registry.evaluations.report(evaluation.id, evaluation_report(report))


@contextmanager
def _queries() -> Iterator[list[str]]:
    """Collect the statements that go to any database."""
    seen: list[str] = []

    def note(_c: Any, _k: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    sqlalchemy.event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sqlalchemy.event.remove(Engine, "before_cursor_execute", note)


def _written() -> int:
    """Return the bytes that this process has written so far, by any system call."""
    for line in Path("/proc/self/io").read_text("ascii").splitlines():
        name, _, value = line.partition(": ")
        if name == "wchar":
            return int(value)
    raise AssertionError("/proc/self/io has no wchar")

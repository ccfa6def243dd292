"""Which check stops a poisoned teacher net, with honest ones beside it.

All but the network and Ray is real: trained nets, the gate, the probe, a transplant, the lab's
report and refinement, the inspection, the witnesses' answers on their own images, the example's
policy. A lab that lies refines nothing. The operator is asked nothing about first merges here
(`acceptance.first = "rule"`): in a federation of strangers, every lab's waits for him besides.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
import torch
from rich.console import Console

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.distillation.settings import MethodName
from rootstock.common.identity.keys import SigningKey
from rootstock.common.images import normalise
from rootstock.common.nets.architectures import build_category_module
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.nets.training import in_batches
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import (
    AdapterEntry,
    BlobEntry,
    RefinementManifest,
    TeacherManifest,
)
from rootstock.coordinator.config import AcceptanceConfig, CoordinatorConfig, WitnessesConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.merges.commit import Committer
from rootstock.coordinator.merges.reconciler import Reconciler
from rootstock.coordinator.merges.runner import MergeRunner
from rootstock.coordinator.net.compose import compose
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.plan.heads import HeadsFile
from rootstock.coordinator.registry import (
    Evaluation,
    MergeState,
    Receipt,
    Registry,
    SubmissionState,
    Upload,
)
from rootstock.coordinator.service.messages import evaluation_report, evaluation_request
from rootstock.deploy.federation.config import Federation
from rootstock.site_agent import scoring
from rootstock.site_agent.config import StatisticsConfig
from rootstock.site_agent.evaluation.measure import Joins, join_to, measure
from rootstock.site_agent.evaluation.refine import Refinement
from rootstock.site_agent.evaluation.rest import rest_of, share_of_yes
from rootstock.site_agent.recipes.interface import Teacher
from rootstock.site_agent.spool.documents import EvaluationReport, RestAnswer
from rootstock.site_agent.teacher.statistics import statistics
from rootstock.site_agent.wire.messages import EvaluationAsked, report_request
from tests.benchmarks.harness.tables import DASH, markdown
from tests.benchmarks.system.honest_labs import HonestLab, example, plan_of, trained
from tests.benchmarks.system.poison_cases import HONEST, POISONS, TASK, Poison, patched
from tests.support.in_process_jobs import InThisProcess

EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"
ENDED = (MergeState.MERGED, MergeState.REJECTED, MergeState.FAILED, MergeState.REVIEWING)


def measure_poisons(data: str, console: Console, poisons: Sequence[Poison] = POISONS) -> Any:
    """Return the rows of `bench poison --json`: each attack, and each honest lab."""
    torch.set_num_threads(1)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="rootstock-bench-") as name:
        federation = example(EXAMPLES / f"{data}.toml", Path(name))
        labs = []
        for site in federation.sites:
            console.print(f"trains {site.site}")
            labs.append(trained(federation, site.site))
        cases = [(HONEST, lab) for lab in labs] + [(poison, labs[1]) for poison in poisons]
        places = _Places(federation, Path(name) / "cases", labs, data)
        rows = []
        for poison, lab in cases:
            row = {"poison": poison.name, "site": lab.manifest.site, **places.row(poison, lab)}
            told = f"{poison.name} ({row['site']}): {row['end']} {row['reason']}"
            console.print(told, soft_wrap=True, markup=False)
            rows.append(row)
    honest = [row for row in rows if row["poison"] == HONEST.name]
    return {
        "rows": rows,
        "false_refusals": sum(row["end"] not in ("merged", "reviewing") for row in honest),
        "waiting": sum(row["end"] == "reviewing" for row in honest),
        "honest": len(honest),
    }


def shown(result: Mapping[str, Any]) -> str:
    """Return the table of a measurement, in Markdown."""
    grid = [["attack", "ends", "by", "error if merged", "yes with the patch", "witnesses' yes"]]
    for row in result["rows"]:
        name = row["poison"] + (f" ({row['site']})" if row["poison"] == HONEST.name else "")
        cells = [row.get(key) for key in ("true_error", "patched_yes", "witnesses_yes")]
        numbers = [DASH if cell is None else f"{cell:.1f}%" for cell in cells]
        grid.append([name, row["end"], row["check"] or DASH, *numbers])
    ends = f"{result['false_refusals']} were refused, {result['waiting']} wait for the operator"
    return f"{markdown(grid)}\n\nOf {result['honest']} honest nets {ends}."


class _Places:
    """Nets of honest labs, made once, that an attacker finds: of none, of one or of two of them."""

    def __init__(
        self, federation: Federation, folder: Path, labs: Sequence[HonestLab], data: str
    ) -> None:
        self._federation, self._folder, self._labs = federation, folder, labs
        # The closed form takes a second, and is good enough for the digits alone.
        self._method = MethodName.CLOSED_FORM if data == "digits" else MethodName.AUTO
        self._keys = SigningKey.generate(), SigningKey.generate()
        self._count = 0

    def row(self, poison: Poison, attacker: HonestLab) -> dict[str, Any]:
        """Bring a net where honest ones are already, unless it is to found one."""
        founder, *others = self._labs
        honest: list[HonestLab] = []
        if not poison.founds and attacker is not founder:
            honest = [founder, *[lab for lab in others if lab is not attacker][:1]]
        centre = self._centre(honest)
        try:
            return centre.bring(poison, attacker, founder)
        finally:
            centre.close()

    def _centre(self, honest: Sequence[HonestLab]) -> _Centre:
        self._count += 1
        state = self._folder / str(self._count)
        made = self._folder / "-".join(["made", *(lab.manifest.site for lab in honest)])
        if honest and not made.exists():
            made.mkdir(parents=True)
            centre = self._opened(made)
            for lab in honest:
                centre.bring(HONEST, lab, honest[0])
            centre.close()
        if honest:
            shutil.copytree(made, state)
        else:
            state.mkdir(parents=True)
        centre = self._opened(state)
        centre.knows(honest)
        return centre

    def _opened(self, state: Path) -> _Centre:
        return _Centre(self._federation, state, self._labs, self._method, self._keys)


class _Centre:
    """A coordinator in this process, and labs that answer it on their real images."""

    def __init__(
        self,
        federation: Federation,
        state: Path,
        labs: Sequence[HonestLab],
        method: MethodName,
        keys: tuple[SigningKey, SigningKey],
    ) -> None:
        plan, self._store = plan_of(federation)
        config: CoordinatorConfig = federation.coordinator
        self._config = config.model_copy(
            update={
                "state": state,
                # An example's own are for labs of one operator, who trusts small numbers.
                "acceptance": config.acceptance.model_copy(
                    update={"first": "rule", "min_samples": AcceptanceConfig().min_samples}
                ),
                "witnesses": WitnessesConfig(),
                "distillation": config.distillation.model_copy(
                    update={"zero_sample_method": method}
                ),
            }
        )
        paths = StatePaths(self._config)
        store = LocalStore(Path(paths.artifacts))
        for entry in plan.blobs():
            store.put_bytes(self._store.local_path(entry.digest).read_bytes())
        self._labs = {lab.manifest.site: lab for lab in labs}
        self._nets: dict[str, Teacher] = {}
        self._poisons: dict[str, Poison] = {}
        self._key, own = keys
        self._registry = Registry(paths.database)
        self._context = CoordinatorContext(self._registry, store, plan, own, self._config)
        self._heads = HeadsFile(paths.heads)

    def close(self) -> None:
        self._registry.close()

    def knows(self, honest: Sequence[HonestLab]) -> None:
        """Take note of nets that were brought when this state was made."""
        for lab in honest:
            self._nets[lab.manifest.site] = lab.teacher
            self._poisons[lab.manifest.site] = HONEST

    def bring(self, poison: Poison, lab: HonestLab, other: HonestLab) -> dict[str, Any]:
        """Ship a lab's net, poisoned or not, and return how that ends."""
        site = lab.manifest.site
        f, g = poison.net(lab, other)
        net = Teacher(f.eval().requires_grad_(False), {TASK: g.eval().requires_grad_(False)})
        self._nets[site], self._poisons[site] = net, poison
        submission = self._ship(self._manifest(poison, lab, net)).id
        asyncio.run(self._until_ended(submission))
        return self._end(submission, lab)

    def _manifest(self, poison: Poison, lab: HonestLab, net: Teacher) -> TeacherManifest:
        store, data = self._context.store, lab.lab.data
        named = statistics(net, data.training, StatisticsConfig())
        named["feature_norm"] = (named["feature_norm"] * poison.statistics).clamp(1e-3, 1e30)
        finite = all(bool(torch.isfinite(value).all()) for value in named.values())
        metrics = {**lab.manifest.metrics}
        if poison.samples is not None:
            metrics["samples/validation"] = poison.samples

        def put(module: torch.nn.Module) -> BlobEntry:
            return put_tensors(store, module.state_dict())

        return lab.manifest.model_copy(
            update={
                "category_module": put(net.category_module),
                "task_modules": {TASK: put(net.task_modules[TASK])},
                "statistics": put_tensors(store, named) if finite else None,
                "measured_task": TASK if finite else None,
                "shared_samples": None,
                "metrics": metrics,
            }
        )

    def _ship(self, manifest: TeacherManifest | RefinementManifest) -> Upload:
        registry, document = self._registry, manifest.canonical()
        registry.sites.join(manifest.site, manifest.site.encode().ljust(32))
        self._context.store.put_bytes(document)
        upload = registry.uploads.begin(manifest, document, self._key.sign(document), open_limit=4)
        receipt = Receipt(upload.manifest_digest, upload.id, "2026-01-01T00:00:00+00:00", b"-")
        registry.uploads.receive(upload.id, receipt)
        return upload

    async def _until_ended(self, submission: str) -> None:
        context, registry = self._context, self._registry
        runner = MergeRunner(context, Committer(context), InThisProcess())
        work = asyncio.create_task(Reconciler(context, runner, self._heads, 1.0).run())
        while True:
            await asyncio.sleep(0.02)
            if work.done():
                work.result()
            if registry.submissions.get(submission).state is SubmissionState.REFUSED:
                break
            merges = registry.merges.of_submission(submission)
            if merges and all(merge.state in ENDED for merge in merges):
                break
            for question in registry.evaluations.of_merges(merge.id for merge in merges):
                if question.report is None:
                    await asyncio.to_thread(self._answer, question)
        work.cancel()
        await asyncio.wait({work})

    def _answer(self, question: Evaluation) -> None:
        request = EvaluationAsked(question.id, evaluation_request(question.request)).read()
        lab, store = self._labs[question.site], self._context.store
        task = self._context.plan.task(request.task)
        assert task is not None

        def fetch(blob: BlobEntry) -> Path:
            return store.local_path(blob.digest)

        data = lab.lab.data
        if request.rest is None:
            f = self._nets[question.site].category_module
            joins = join_to(f, request, task, fetch)
            results = measure(joins, data, calibrates=True)
            report = EvaluationReport(evaluation_id=question.id, results=results)
            lie = self._poisons[question.site].report
            if lie is not None:
                report = lie(report)
            elif request.refinement_spec is not None:
                report = self._refined(lab, report, joins, request.refinement_spec)
        else:
            spec, entry = request.rest.architecture, request.rest.category_module
            f = safetensors_io.load_frozen(build_category_module(spec), fetch(entry), entry)
            joins = join_to(f, request, task, fetch)
            images = rest_of(data.validation, lab.lab.loaded.classes, request.rest.category)
            (y_N,) = scoring.logits(f, joins.heads(), images).values()
            yes, samples = share_of_yes(
                (request.rest.calibration.apply(y_N) > 0).tolist(),
                [lab.lab.loaded.classes.get(key, "") for key in images.keys],
                named=len(images) < data.validation.counts()[1],
            )
            answer = RestAnswer(yes=yes, samples=samples)
            report = EvaluationReport(evaluation_id=question.id, rest=answer)
        self._registry.evaluations.report(question.id, evaluation_report(report_request(report)))

    def _refined(
        self, lab: HonestLab, report: EvaluationReport, joins: Joins, spec: AdapterSpec
    ) -> EvaluationReport:
        config, data = lab.lab.config, lab.lab.data
        refinement = Refinement(joins, data, config.refinement, config.training.augment)
        refined = refinement.run(spec, lambda *_: None)
        adapter = refined.adapter.eval()
        joins = dataclasses.replace(joins, adapters={"refined": adapter})
        (result,) = measure(joins, data, calibrates=True)
        blob = put_tensors(self._context.store, adapter.state_dict())
        manifest = RefinementManifest(
            site=config.site,
            evaluation=report.evaluation_id,
            adapter=AdapterEntry(spec=spec, blob=blob),
        )
        return report.model_copy(
            update={
                "refinement_manifest_digest": self._ship(manifest).manifest_digest,
                "refined_error": result.error,
                "refined_calibration": result.calibration,
                "refinement_steps": refined.steps,
            }
        )

    def _end(self, submission: str, lab: HonestLab) -> dict[str, Any]:
        """Return what became of a submission: how it ended, why, and what is true of it."""
        found = self._registry.submissions.get(submission)
        if found.state is SubmissionState.REFUSED:
            return {"end": "refused", "check": _check(found.reason), "reason": found.reason}
        (merge,) = self._registry.merges.of_submission(submission)
        row: dict[str, Any] = {
            "end": str(merge.state),
            "check": _check(merge.reason),
            "reason": merge.reason,
        }
        if merge.state is MergeState.MERGED:
            tree = self._context.tree()
            assert tree is not None
            net = compose(tree, self._context.store, merge.category, merge.task)
            data = lab.lab.data.validation
            rest = data.subset(torch.nonzero(data.labels_N == 0).flatten().tolist())
            row["true_error"] = round(_error(net, data.images_NCHW, data.labels_N), 2)
            patch = patched(rest.images_NCHW)
            row["patched_yes"] = round(_error(net, patch, rest.labels_N), 2)
        row["witnesses_yes"] = merge.numbers.most_yes
        return row


def _error(net: torch.nn.Module, images_NCHW: torch.Tensor, labels_N: torch.Tensor) -> float:
    return scoring.error_percent(in_batches(net, normalise(images_NCHW)).flatten(), labels_N)


def _check(reason: str) -> str:
    return reason.partition(":")[0] if reason else ""

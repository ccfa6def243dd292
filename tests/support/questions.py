"""A question of a coordinator to a lab: evaluate two candidates, and refine the better one."""

from __future__ import annotations

from pathlib import Path

import torch

from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.protocol import evaluation_id
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import AdapterEntry, TeacherManifest
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.registry import documents
from tests.support.centre import Centre


def ask(
    centre: Centre,
    folder: Path,
    submission: str,
    manifest: TeacherManifest,
) -> str:
    """Ask the lab to join its f to its own g, with no adapter and with a random one."""
    spec = AdapterSpec(in_channels=8, out_channels=8)
    adapter = Adapter(spec).random_start(torch.Generator().manual_seed(3))
    blob = safetensors_io.write(folder / "adapter", adapter.state_dict())
    centre.store.put_file(folder / "adapter", blob.digest)
    candidates = {
        Candidate.NO_ADAPTER: None,
        Candidate.ZERO_SAMPLE: AdapterEntry(spec=spec, blob=blob),
    }
    return ask_about(centre, submission, manifest, candidates, spec)


def ask_about(
    centre: Centre,
    submission: str,
    manifest: TeacherManifest,
    candidates: dict[Candidate, AdapterEntry | None],
    refinement: AdapterSpec | None = None,
    turn: int = 1,
) -> str:
    """Ask the lab to join its f to its own g with each candidate; return the question's id.

    `turn` counts the questions about the one merge of a submission from 1.
    """
    merge = centre.registry.merges.create(
        submission, manifest.category, "classification", OperationKind.NEW_CATEGORY
    )
    request = documents.EvaluationRequest(
        evaluation_id=evaluation_id(merge.id, turn),
        merge_id=merge.id,
        manifest_digest=manifest.content_digest(),
        task="classification",
        architecture=manifest.architecture,
        task_module=manifest.task_modules["classification"],
        candidates=candidates,
        refinement_spec=refinement,
    )
    return centre.registry.evaluations.request(manifest.site, request).id


def reported(centre: Centre, asked: str) -> documents.EvaluationReport:
    report = centre.registry.evaluations.get(asked).report
    assert report is not None
    return report


def answered(centre: Centre, asked: str) -> bool:
    return centre.registry.evaluations.get(asked).report is not None

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import pytest
import torch

from rootstock.common.errors import NotFoundError, RootstockError, SchemaError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import feature_shape
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.protocol import Plan
from rootstock.common.transport.download import download
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry, RefinementManifest
from rootstock.common.weights.safetensors_io import read, write
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.merges.commit import roll_back
from rootstock.coordinator.paths import samples_area
from rootstock.coordinator.registry import SubmissionState
from rootstock.coordinator.registry.documents import EvaluationReport, EvaluationRequest
from tests.support.coordinator_server import (
    CHUNK,
    Lab,
    LabMaker,
    Refinement,
    Running,
    fetch,
    version_of,
)


def largest(plan: Plan) -> BlobEntry:
    return max(plan.initial_task_modules.values(), key=lambda entry: entry.size)


def test_a_joined_lab_gets_the_plans_initial_weights(lab: LabMaker, tmp_path: Path) -> None:
    cat = lab("cat-lab")
    plan = cat.plan()
    entry = plan.initial_category_module
    path = download(
        cat.stub.Download, entry.digest, tmp_path / "f", max_bytes=1 << 30, size=entry.size
    )
    assert set(read(path, entry)) == set(entry.tensors)


@pytest.mark.parametrize("offset", [0, 1, CHUNK, 3 * CHUNK + 17])
def test_from_any_offset_to_the_end(coordinator: Running, lab: LabMaker, offset: int) -> None:
    cat = lab("cat-lab")
    entry = largest(cat.plan())
    data = coordinator.store.local_path(entry.digest).read_bytes()
    got = fetch(cat, entry.digest, offset)
    assert b"".join(message.data for message in got) == data[offset:]
    assert got[0].offset == offset
    assert {message.total_size for message in got} == {entry.size}
    assert all(message.crc32 == zlib.crc32(message.data) for message in got)
    assert max(len(message.data) for message in got) == CHUNK


def test_the_end_is_an_offset_and_beyond_it_is_none(lab: LabMaker) -> None:
    cat = lab("cat-lab")
    entry = largest(cat.plan())
    (only,) = fetch(cat, entry.digest, entry.size)
    assert (only.data, only.total_size) == (b"", entry.size)
    with pytest.raises(SchemaError, match="beyond"):
        fetch(cat, entry.digest, entry.size + 1)


def test_a_lab_resumes_a_download_that_was_cut(
    coordinator: Running, lab: LabMaker, tmp_path: Path
) -> None:
    cat = lab("cat-lab")
    entry = largest(cat.plan())
    data = coordinator.store.local_path(entry.digest).read_bytes()
    part = tmp_path / "g.part"
    part.write_bytes(data[: 2 * CHUNK])
    seen: list[int] = []
    path = download(
        cat.stub.Download,
        entry.digest,
        tmp_path / "g",
        max_bytes=1 << 30,
        progress=seen.append,
    )
    assert path.read_bytes() == data
    assert seen[0] == 3 * CHUNK


@pytest.mark.parametrize(
    ("digest", "error"), [("0" * 64, NotFoundError), ("../../coordinator.key", SchemaError)]
)
def test_what_is_not_there_is_said(lab: LabMaker, digest: str, error: type[RootstockError]) -> None:
    with pytest.raises(error):
        fetch(lab("cat-lab"), digest)


def whole(lab: Lab, digest: str) -> bytes:
    return b"".join(message.data for message in fetch(lab, digest))


def require_refused(lab: Lab, digest: str) -> None:
    """Hold a refusal against what is said of a blob that there is not."""
    absent = "0" * 64
    with pytest.raises(NotFoundError) as nothing:
        fetch(lab, absent)
    with pytest.raises(NotFoundError) as refused:
        fetch(lab, digest)
    assert str(refused.value).replace(digest, absent) == str(nothing.value)


def test_what_a_lab_has_sent_is_for_itself_until_it_is_in_the_net(
    coordinator: Running, lab: LabMaker
) -> None:
    cat, dog = lab("cat-lab"), lab("dog-lab")
    samples = {"images": torch.rand(2, 3, 32, 32), "labels": torch.tensor([1.0, 0.0])}
    teacher = cat.teacher("cat", samples=samples)
    statistics = write(cat.folder / "statistics", {"feature_norm": torch.ones(1)})
    manifest = teacher.manifest.model_copy(update={"statistics": statistics})
    teacher.files[statistics.digest] = cat.folder / "statistics"
    receipt = cat.ship(dataclasses.replace(teacher, manifest=manifest))
    f = manifest.category_module.digest
    g = manifest.task_modules["classification"].digest
    for digest in (f, g, statistics.digest):
        assert whole(cat, digest) == teacher.files[digest].read_bytes()
        require_refused(dog, digest)
    head = version_of(coordinator, receipt.submission_id)
    for digest in (f, g):
        assert whole(dog, digest) == teacher.files[digest].read_bytes()
    assert head is not None
    for digest in (statistics.digest, receipt.manifest_digest, head.digest, head.tree):
        require_refused(dog, digest)
    roll_back(coordinator.context, 1, "not wanted", and_later=False)
    require_refused(dog, f)
    assert whole(cat, f) == teacher.files[f].read_bytes()
    # What was refused is its lab's, for as long as it is there.
    mouse = cat.teacher("mouse", seed=9)
    refused = cat.ship(mouse)
    coordinator.registry.submissions.set_state(refused.submission_id, SubmissionState.REFUSED)
    module = mouse.manifest.category_module.digest
    assert whole(cat, module) == mouse.files[module].read_bytes()
    require_refused(dog, module)
    coordinator.store.delete(module)
    require_refused(cat, module)


def test_samples_are_for_nobody(coordinator: Running, lab: LabMaker) -> None:
    cat, dog = lab("cat-lab"), lab("dog-lab")
    samples = {"images": torch.rand(2, 3, 32, 32), "labels": torch.tensor([1.0, 0.0])}
    teacher = cat.teacher("cat", samples=samples)
    receipt = cat.ship(teacher)
    assert teacher.manifest.shared_samples is not None
    digest = teacher.manifest.shared_samples.blob.digest
    area = coordinator.store.area(samples_area(receipt.submission_id))
    assert area.local_path(digest).read_bytes() == teacher.files[digest].read_bytes()
    assert not coordinator.store.has(digest)
    for each in (cat, dog):
        require_refused(each, digest)


def test_what_nobody_was_given_is_for_nobody(coordinator: Running, lab: LabMaker) -> None:
    """A checkpoint's document, an orphan tree, weights of a job that failed."""
    cat = lab("cat-lab")
    for blob in (b"{}", b"weights"):
        require_refused(cat, coordinator.store.put_bytes(blob))


def test_candidates_are_for_the_lab_that_is_asked_until_it_answers(
    coordinator: Running, lab: LabMaker
) -> None:
    cat, dog = lab("cat-lab"), lab("dog-lab")
    receipt = cat.ship(cat.teacher("cat"))
    registry = coordinator.registry
    registry.submissions.set_state(receipt.submission_id, SubmissionState.ADMITTED)
    merge = registry.merges.create(
        receipt.submission_id, "cat", "classification", OperationKind.NEW_CATEGORY
    )
    spec = AdapterSpec(in_channels=4, out_channels=4)
    blob = put_tensors(coordinator.store, Adapter(spec).identity_start().state_dict())
    student = put_tensors(coordinator.store, {"g": torch.rand(4)})
    dreamed = put_tensors(coordinator.store, {"images": torch.rand(4)})
    request = EvaluationRequest(
        evaluation_id="evl-0001",
        merge_id=merge.id,
        manifest_digest=receipt.manifest_digest,
        task="classification",
        architecture=coordinator.plan.architecture,
        task_module=student,
        candidates={
            Candidate.NO_ADAPTER: None,
            Candidate.ZERO_SAMPLE: AdapterEntry(spec=spec, blob=blob),
        },
    )
    require_refused(cat, blob.digest)
    registry.evaluations.request("cat-lab", request)
    for entry in (blob, student):
        assert len(whole(cat, entry.digest)) == entry.size
        require_refused(dog, entry.digest)
    for each in (cat, dog):
        require_refused(each, dreamed.digest)
    registry.evaluations.report("evl-0001", EvaluationReport(evaluation_id="evl-0001"))
    require_refused(cat, blob.digest)


def test_a_refined_adapter_is_its_lab_s(coordinator: Running, lab: LabMaker) -> None:
    cat, dog = lab("cat-lab"), lab("dog-lab")
    receipt = cat.ship(cat.teacher("cat"))
    registry = coordinator.registry
    merge = registry.merges.create(
        receipt.submission_id, "cat", "classification", OperationKind.NEW_CATEGORY
    )
    channels = feature_shape(coordinator.plan.architecture)[0]
    spec = AdapterSpec(in_channels=channels, out_channels=channels)
    request = EvaluationRequest(
        evaluation_id="evl-0001",
        merge_id=merge.id,
        manifest_digest=receipt.manifest_digest,
        task="classification",
        architecture=coordinator.plan.architecture,
        task_module=coordinator.plan.initial_task_modules["classification"],
        candidates={Candidate.NO_ADAPTER: None},
        refinement_spec=spec,
    )
    registry.evaluations.request("cat-lab", request)
    path = cat.folder / "adapter"
    blob = write(path, Adapter(spec).identity_start().state_dict())
    manifest = RefinementManifest(
        site="cat-lab", evaluation="evl-0001", adapter=AdapterEntry(spec=spec, blob=blob)
    )
    cat.ship(Refinement(manifest, {blob.digest: path}))
    assert whole(cat, blob.digest) == path.read_bytes()
    require_refused(dog, blob.digest)

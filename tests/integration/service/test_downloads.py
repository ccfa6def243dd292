from __future__ import annotations

import zlib
from pathlib import Path

import pytest
import torch

from rootstock.common.errors import NotFoundError, RootstockError, SchemaError
from rootstock.common.protocol import Plan
from rootstock.common.transport.download import download
from rootstock.common.weights.manifest import BlobEntry
from rootstock.common.weights.safetensors_io import read
from tests.support.coordinator_server import CHUNK, LabMaker, Running, fetch


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


def test_modules_are_for_all_and_samples_for_their_lab(lab: LabMaker) -> None:
    cat, dog = lab("cat-lab"), lab("dog-lab")
    samples = {"images": torch.rand(2, 3, 32, 32), "labels": torch.tensor([1.0, 0.0])}
    teacher = cat.teacher("cat", samples=samples)
    cat.ship(teacher)
    module = teacher.manifest.category_module.digest
    assert teacher.manifest.shared_samples is not None
    private = teacher.manifest.shared_samples.blob.digest
    expected = teacher.files[module].read_bytes()
    assert b"".join(message.data for message in fetch(dog, module)) == expected
    assert fetch(cat, private)
    # The same answer as for what is not there: nothing is given away.
    with pytest.raises(NotFoundError, match=f"no blob {private}"):
        fetch(dog, private)

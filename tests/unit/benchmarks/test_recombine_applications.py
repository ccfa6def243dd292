"""The applications of compatible nets: other domains, other architectures, other tasks."""

import copy
import gzip
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rootstock.common.compatible.batchnorm import norms
from rootstock.common.errors import DataError, SchemaError, TransplantError
from tests.benchmarks.harness import tables
from tests.benchmarks.harness.request import Folders, Request
from tests.benchmarks.harness.training import Training
from tests.benchmarks.papers.recombine import (
    domains,
    experiment,
    extractors,
    goals,
    pair_settings,
    rows,
    transfer,
    uda,
)
from tests.benchmarks.papers.recombine.budget import QUICK, Budget
from tests.benchmarks.papers.recombine.rows import UPPER, Row
from tests.benchmarks.papers.shared.datasets import CIFAR10
from tests.benchmarks.papers.shared.digits import grey_task
from tests.support.benchmark_images import decoded, grey
from tests.support.layers import weight

pytestmark = pytest.mark.slow

SHORT = Training(steps=3, batch=16, learning_rate=0.01)
TINY = replace(
    QUICK, width=4, unlabelled=64, photographs=SHORT, grey=SHORT, extractors=SHORT, tuning=SHORT,
    adapting=replace(SHORT, decay="constant", weight_decay=0),
)  # fmt: skip


def asked(folders: Folders, seeds: int = 1) -> Request[Budget]:
    return Request(folders, replace(TINY, seeds=seeds), workers=1)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path, tmp_path)


def idx(path: Path, array: np.ndarray, *, cut: int = 0) -> None:
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    data = head + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wb") as file:
        file.write(data[: len(data) - cut])


@pytest.fixture
def mnist(tmp_path: Path) -> Folders:
    generator = np.random.default_rng(0)
    folder = tmp_path / "mnist" / "MNIST" / "raw"
    for stem, count in (("train", 20), ("t10k", 10)):
        idx(folder / f"{stem}-images-idx3-ubyte.gz", generator.integers(0, 256, (count, 28, 28)))
        idx(folder / f"{stem}-labels-idx1-ubyte.gz", np.arange(count) % 10)
    return Folders(tmp_path, tmp_path / "cache")


def test_digits_are_read_and_scaled_to_one_size(mnist: Folders) -> None:
    task = grey_task("mnist", mnist)
    assert task.training.images_NCSS.shape == (20, 1, 32, 32)
    assert task.test.classes_N.tolist() == list(range(10))
    assert not task.photographs
    again = grey_task("mnist", replace(mnist, root=mnist.root / "gone"))
    assert torch.equal(again.test.images_NCSS, task.test.images_NCSS)
    (mnist.root / "usps").mkdir()
    pixels = np.full((10, 256), 7, np.uint8)
    arrays: dict[str, Any] = {f"x_{part}": pixels for part in ("train", "test")}
    arrays |= {f"y_{part}": np.arange(10, dtype=np.int64) for part in ("train", "test")}
    np.savez(mnist.root / "usps" / "usps_uint8.npz", **arrays)
    usps = grey_task("usps", mnist)
    assert usps.training.images_NCSS.unique().tolist() == [7]
    assert usps.training.images_NCSS.shape == (10, 1, 32, 32)


def test_files_that_are_missing_or_cut_are_named(mnist: Folders) -> None:
    with pytest.raises(DataError, match=r"usps_uint8\.npz is missing; give --root"):
        grey_task("usps", mnist)
    with pytest.raises(DataError, match=r"FashionMNIST.*is missing; give --root"):
        grey_task("fashion-mnist", mnist)
    with pytest.raises(SchemaError, match="unknown task 'svhn'; known are mnist"):
        grey_task("svhn", mnist)
    raw = mnist.root / "mnist" / "MNIST" / "raw"
    idx(raw / "t10k-labels-idx1-ubyte.gz", np.arange(10), cut=1)
    with pytest.raises(DataError, match=r"shape \[10\] and holds 9"):
        grey_task("mnist", mnist)
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="not a whole gzip file"):
        grey_task("mnist", mnist)


def test_grey_tasks_of_cifar_have_their_own_classes_and_share_no_image(
    tmp_path: Path, folders: Folders
) -> None:
    decoded(tmp_path)
    animals, vehicles, public = (
        grey_task(name, folders) for name in ("animals", "vehicles", "public")
    )
    assert set(animals.classes) | set(vehicles.classes) == set(CIFAR10)
    assert (len(animals.training), len(vehicles.training), len(public.training)) == (192, 128, 80)
    seen = {image.numpy().tobytes() for image in public.training.images_NCSS}
    assert not seen & {image.numpy().tobytes() for image in animals.training.images_NCSS}
    assert animals.training.classes_N.unique().tolist() == list(range(6))


def test_adapting_changes_the_extractor_alone_and_reads_no_label(
    tmp_path: Path, folders: Folders
) -> None:
    for name in ("mnist", "usps"):
        grey(tmp_path, name)
    cell = uda.cells(asked(folders))[0]
    source = domains.trained(folders, cell.source)
    before = copy.deepcopy(source)
    target = grey_task("usps", folders)
    adapted = uda.adapt(source, target, cell)
    for ours, was in ((source.f, before.f), (source.head, before.head),
                      (source.rotation, before.rotation), (adapted.head, before.head)):  # fmt: skip
        states = zip(ours.state_dict().values(), was.state_dict().values(), strict=True)
        assert all(torch.equal(one, other) for one, other in states)
    assert not torch.equal(weight(adapted.f, "conv1"), weight(before.f, "conv1"))
    unlabelled = replace(
        target, training=replace(target.training, classes_N=torch.zeros(200, dtype=torch.long))
    )
    again = uda.adapt(source, unlabelled, cell)
    assert torch.equal(weight(again.f, "conv1"), weight(adapted.f, "conv1"))
    found = uda.judged(cell)
    assert [row.method for row in found] == [uda.SOURCE, uda.STATISTICS, uda.ADAPTED, UPPER]
    assert {row.direction for row in found} == {"mnist>usps"}


def test_an_extended_head_knows_what_it_knew() -> None:
    head = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)).requires_grad_(False)
    wider = extractors.extended(head, 5, seed=0)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert wider(x).shape == (4, 5)
    torch.testing.assert_close(wider(x)[:, :3], head(x))
    assert all(parameter.requires_grad for parameter in wider.parameters())
    with pytest.raises(TransplantError, match="cannot be extended to 3 classes"):
        extractors.extended(head, 3, seed=0)


def test_extractors_of_three_architectures_share_a_head(tmp_path: Path, folders: Folders) -> None:
    decoded(tmp_path)
    cell = extractors.cell(asked(folders), 0)
    together = extractors.trained(folders, cell.together)
    assert list(together.by_name) == ["small-resnet", "wide-resnet", "mobilenetv2"]
    found = extractors.judged(cell)
    kept = extractors.trained(folders, cell.together)
    for name, f in kept.by_name.items():  # no extractor changed while the head learned
        states = zip(
            f.state_dict().values(), together.by_name[name].state_dict().values(), strict=True
        )
        assert all(torch.equal(one, other) for one, other in states)
    assert len(found) == 8
    assert {(row.method, row.direction) for row in found if row.case == "mobilenetv2"} == {
        (extractors.CARRIED, "mobilenetv2>wide-resnet"),
        (extractors.INDEPENDENT, "mobilenetv2>wide-resnet"),
        (UPPER, "mobilenetv2>mobilenetv2"),
    }
    assert all(row.upper_bound is not None for row in rows.bounded(found))


def test_nets_of_all_tasks_learn_against_the_founders_head(
    tmp_path: Path, folders: Folders
) -> None:
    for name in (*transfer.TASKS, transfer.FOUNDER):
        grey(tmp_path, name)
    request = asked(folders)
    wanted = transfer.cells(request)
    assert len(wanted) == 3 * 1 * 4  # methods, targets, sources
    cell = wanted[0]
    founder = domains.configured(request, transfer.FOUNDER, 0)
    assert cell.source.founder == cell.target.founder == founder
    assert cell.source.start == cell.target.start
    source = domains.trained(folders, cell.source)
    theirs = domains.trained(folders, founder)
    states = zip(
        source.rotation.state_dict().values(), theirs.rotation.state_dict().values(), strict=True
    )
    assert all(torch.equal(one, other) for one, other in states)
    assert all(not layer.track_running_stats for layer in norms(source.rotation))
    independent = next(c for c in wanted if c.method == transfer.INDEPENDENT)
    assert independent.source.start != independent.target.start
    assert independent.source.founder is None
    found = transfer.judged(cell)
    assert [row.case for row in found] == ["0", "1", "3"]
    assert len({row.upper_bound for row in found}) == 1


def test_a_ranking_is_compared_within_a_target() -> None:
    def row(method: str, case: str, source: str, target: str, accuracy: float) -> Row:
        return Row("transfer", method, case, f"{source}>{target}", 0, accuracy, 10.0)

    before = {"a": 10.0, "b": 20.0, "c": 30.0}
    after = {"x": {"a": 50.0, "b": 60.0, "c": 70.0}, "y": {"a": 90.0, "b": 80.0, "c": 70.0}}
    made = [
        row(method, case, source, target, value)
        for target, late in after.items()
        for method, case, values in (("ours", "0", before), ("new", "9", late))
        for source, value in values.items()
    ]
    only_x = [one for one in made if one.direction.endswith("x")]
    assert transfer.rank_correlation(only_x, "ours", "new") == pytest.approx(1)
    assert transfer.rank_correlation(made, "ours", "new") == pytest.approx(0)  # 1 and −1
    tied = [replace(one, accuracy=10.0) if one.method == "ours" else one for one in only_x]
    assert transfer.rank_correlation(tied, "ours", "new") == 0


def test_pairs_that_settings_share_are_trained_once(folders: Folders) -> None:
    configs = {
        setting: [cell.config for cell in pair_settings.cells(setting, asked(folders, 2))]
        for setting in ("analysis", "incremental", "classes", "split")
    }
    shared = [config for config in configs["incremental"] if config in configs["analysis"]]
    assert {config.condition for config in shared} == {"iiw+rp+dcc", UPPER}
    assert [c.common_classes for c in configs["classes"] if c.seed == 0] == [2, 3, 4, 5, 6, 0, 0]
    assert any(config in configs["split"] for config in configs["classes"])
    first = {c.seed: c.scheme for c in configs["incremental"] if c.scheme != "joint"}
    assert first == {0: "a first", 1: "b first"}


@pytest.mark.parametrize(
    ("methods", "verdicts"),
    [
        ({uda.SOURCE: 50.0, uda.STATISTICS: 60.0, uda.ADAPTED: 62.0}, ["met", "met"]),
        ({uda.SOURCE: 50.0, uda.STATISTICS: 60.0, uda.ADAPTED: 55.0}, ["missed", "met"]),
    ],
)
def test_domain_adaptation_has_to_beat_test_time_batchnorm(
    methods: dict[str, float], verdicts: list[str]
) -> None:
    made = [
        Row("uda", method, "", direction, seed, accuracy, 10.0)
        for method, accuracy in methods.items()
        for direction in ("mnist>usps", "usps>mnist")
        for seed in range(2)
    ]
    assert [goal.verdict for goal in goals.goals(made)] == verdicts
    assert "| adapted by rp |" in tables.markdown(experiment.grid(made))
    assert tables.markdown(experiment.grid(made)).startswith(
        "| method | mnist>usps | usps>mnist | mean |"
    )

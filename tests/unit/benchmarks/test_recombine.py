"""Recombining nets, on images that are learned in seconds: a pattern says the class."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

from rootstock.common.errors import ConfigurationError, DataError, SchemaError
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.deploy.cli.commands import app
from tests.benchmarks.harness import tables
from tests.benchmarks.harness.experiment import made
from tests.benchmarks.harness.request import Folders, Request, requested
from tests.benchmarks.harness.rows import average
from tests.benchmarks.harness.training import Training
from tests.benchmarks.papers.recombine import experiment, goals, pair_settings, pairs, rows
from tests.benchmarks.papers.recombine.budget import BUDGETS, QUICK
from tests.benchmarks.papers.recombine.experiment import Recombine
from tests.benchmarks.papers.recombine.pairs import ALL, PairConfig
from tests.benchmarks.papers.recombine.rows import UPPER, Row
from tests.benchmarks.papers.shared import data, judging
from tests.benchmarks.papers.shared.data import Task
from tests.benchmarks.papers.shared.datasets import CIFAR10, Labelled
from tests.benchmarks.papers.shared.training import Learner, freeze, train
from tests.support.benchmark_images import decoded, images

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)
CPU = torch.device("cpu")
SPEC = ArchitectureSpec(name="small-resnet", split="block2_1", settings={"blocks": 1, "width": 4})
TRAINING = Training(steps=60, batch=16, learning_rate=0.02)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path, decoded(tmp_path / "cache"))


@pytest.fixture
def tasks(folders: Folders) -> tuple[Task, Task]:
    a, b = data.halves(folders, data.OVERLAPPING, seed=0)
    return replace(a, photographs=False), replace(b, photographs=False)


def config(condition: str, **changes: object) -> PairConfig:
    values: dict[str, object] = {
        "architecture": SPEC, "without": data.OVERLAPPING, "condition": condition,
        "common_classes": 6, "training": TRAINING, "seed": 0, "device": "cpu",
    }  # fmt: skip
    return PairConfig.model_validate({**values, **changes})


def each(shown: Labelled) -> set[bytes]:
    return {image.numpy().tobytes() for image in shown.images_NCSS}


def test_nets_share_no_image_and_none_of_theirs_is_a_test_image(folders: Folders) -> None:
    a, b = data.halves(folders, data.SAME, seed=0)
    assert len(each(a.training)) == len(each(b.training)) == 200
    assert not each(a.training) & each(b.training)
    assert not (each(a.training) | each(b.training)) & each(a.test)
    again, _ = data.halves(folders, data.SAME, seed=1)
    assert each(again.training) != each(a.training)
    assert each(again.test) == each(a.test)  # seeds share the judge


def test_classes_in_common_are_the_first_outputs_of_both_nets(tasks: tuple[Task, Task]) -> None:
    a, b = tasks
    assert data.in_common(a, b) == 6
    assert a.classes[:6] == b.classes[:6] == ("airplane", "bird", "cat", "dog", "horse", "truck")
    assert set(a.classes[6:]) == {"ship", "frog"}
    shown = images(100, 3)
    for place, name in enumerate(a.classes):
        expected = shown.images_NCSS[shown.classes_N == CIFAR10.index(name)]
        assert torch.equal(a.test.images_NCSS[a.test.classes_N == place], expected)


def test_a_crop_moves_and_mirrors_whole_images() -> None:
    image = torch.arange(32 * 32).reshape(1, 1, 32, 32).remainder(97).to(torch.uint8)
    padded = nn.functional.pad(image, (4, 4, 4, 4), value=128)
    possible = {
        view.contiguous().numpy().tobytes(): (row, column, view is not seen)
        for row in range(9)
        for column in range(9)
        for seen in [padded[0, :, row : row + 32, column : column + 32]]
        for view in (seen, seen.flip(-1))
    }
    crops = data.cropped(image.expand(200, -1, -1, -1), torch.Generator().manual_seed(0))
    paths = {possible[crop.contiguous().numpy().tobytes()] for crop in crops}
    assert {row for row, _, _ in paths} == {column for _, column, _ in paths} == set(range(9))
    assert {mirrored for _, _, mirrored in paths} == {False, True}


def test_identical_initial_weights_are_identical_and_others_are_not(
    tasks: tuple[Task, Task],
) -> None:
    for condition, same in (("iiw", True), ("independent", False)):
        a, b = pairs.built(config(condition), tasks)
        for ours, theirs in ((a.f, b.f), (a.head, b.head)):
            first, second = (next(iter(part.parameters())) for part in (ours, theirs))
            assert torch.equal(first, second) is same


def test_shared_heads_are_one_and_the_upper_bounds_are_two(tasks: tuple[Task, Task]) -> None:
    nets = pairs.built(config(ALL), tasks)
    a, b = pairs.learners(config(ALL), tasks, nets)
    assert a.rotation is b.rotation is not None
    assert a.common is b.common is not None
    a, b = pairs.learners(config(UPPER), tasks, nets)
    assert a.rotation is not b.rotation
    assert a.common is b.common is None


def test_heads_that_the_first_net_learned_do_not_change_while_the_second_learns(
    tasks: tuple[Task, Task],
) -> None:
    short = replace(TRAINING, steps=4)
    given = config(ALL, scheme="a first", training=short)
    nets = pairs.built(given, tasks)
    a, b = pairs.learners(given, tasks, nets)
    heads = [head for head in (a.rotation, a.common) if head is not None]
    untrained = [{k: v.clone() for k, v in head.state_dict().items()} for head in heads]
    train([a], short, CPU)
    freeze(*heads)
    learned = [{k: v.clone() for k, v in head.state_dict().items()} for head in heads]
    before = b.f.get_parameter("conv1.weight").clone()
    train([b], short, CPU)
    for head, was, start in zip(heads, learned, untrained, strict=True):
        assert all(torch.equal(value, was[name]) for name, value in head.state_dict().items())
        assert not torch.equal(was["fc.weight"], start["fc.weight"])
    assert not torch.equal(before, b.f.get_parameter("conv1.weight"))
    # `learn` does just that.
    again = pairs.built(given, tasks)
    pairs.learn(given, tasks, again, CPU)
    for one, other in zip(nets, again, strict=True):
        assert torch.equal(*(net.head.get_parameter("fc.weight") for net in (one, other)))


def test_a_shared_head_makes_nets_fit_and_independent_ones_do_not(
    tasks: tuple[Task, Task], folders: Folders
) -> None:
    asked = Request(folders, replace(QUICK, unlabelled=200, test_images=None), workers=1)
    found = {}
    for condition in ("independent", "iiw+dcc"):
        cell = pairs.PairCell(asked, config(condition), condition)
        nets = pairs.trained(cell.config, tasks, folders)
        found[condition] = pairs.judged(cell, tasks, nets)
    alone, fitting = (average(found[name], "accuracy") for name in found)
    assert alone is not None
    assert fitting is not None
    assert all(row.own_accuracy is not None and row.own_accuracy > 80 for row in found["iiw+dcc"])
    assert alone.mean < 45
    assert fitting.mean > 70
    alike = [float(found[name][0].correlation or 0) for name in found]
    assert alike[0] < 0.4 < alike[1]
    assert [row.direction for row in found["iiw+dcc"]] == ["a>b", "b>a"]
    # A second run takes the nets from the cache and measures the same.
    kept = pairs.trained(config("iiw+dcc"), tasks, folders)
    assert pairs.judged(cell, tasks, kept) == found["iiw+dcc"]


def test_the_same_seed_trains_the_same_nets(tasks: tuple[Task, Task]) -> None:
    given = config("iiw+rp", training=replace(TRAINING, steps=3))
    made = []
    for _ in range(2):
        nets = pairs.built(given, tasks)
        pairs.learn(given, tasks, nets, CPU)
        made.append(nets[1].f.state_dict())
    assert all(torch.equal(value, made[1][name]) for name, value in made[0].items())


def test_recombining_leaves_both_nets_as_they_are(tasks: tuple[Task, Task]) -> None:
    a, b = pairs.built(config("independent"), tasks)
    before = {k: v.clone() for k, v in a.f.state_dict().items()}
    shown = tasks[0].training.images_NCSS[:64]
    net = judging.recombined(a.f, b.head, shown)
    assert all(torch.equal(value, before[name]) for name, value in a.f.state_dict().items())
    assert not torch.equal(net[0].get_buffer("bn1.running_mean"), before["bn1.running_mean"])
    kept = judging.recombined(a.f, b.head, None)
    assert torch.equal(kept[0].get_buffer("bn1.running_mean"), before["bn1.running_mean"])


def test_channels_are_correlated_over_images_and_places() -> None:
    shown = images(20, 4).images_NCSS
    turned = nn.Conv2d(3, 3, 1, bias=False)
    plain = nn.Conv2d(3, 3, 1, bias=False)
    with torch.no_grad():
        plain.weight.copy_(torch.eye(3)[:, :, None, None])
        turned.weight.copy_(torch.tensor([[0, 2.0, 0], [0, 0, -1.0], [0, 0, 0]])[:, :, None, None])
    found = judging.cross_correlation(plain, turned, shown)
    assert float(found[1, 0]) == pytest.approx(1, abs=1e-6)
    assert float(found[2, 1]) == pytest.approx(-1, abs=1e-6)
    assert found[:, 2].tolist() == [0, 0, 0]  # a channel that never changes
    assert judging.permuted(found) > float(found.diagonal().mean())


def test_accuracy_among_the_classes_in_common_ignores_the_others() -> None:
    scores = torch.tensor([[1.0, 0, 9], [2, 1, 0], [0, 1, 9]])
    classes = torch.tensor([0, 1, 2])
    assert judging.accuracy(scores, classes, 2) == 50
    assert judging.accuracy(scores, classes) == pytest.approx(100 / 3)
    uneven = torch.tensor([0, 0, 2])
    assert judging.class_accuracy(torch.eye(3)[[0, 1, 2]], uneven) == 75


def test_a_head_of_common_classes_needs_some(tasks: tuple[Task, Task], folders: Folders) -> None:
    apart = (replace(tasks[0], classes=("cat", "dog")), replace(tasks[1], classes=("ship",)))
    nets = pairs.built(config("dcc"), apart)
    with pytest.raises(SchemaError, match=r"0 in common.*or rp"):
        pairs.learners(config("dcc"), apart, nets)
    with pytest.raises(SchemaError, match="fewer than two classes in common"):
        data.halves(folders, (CIFAR10[:5], CIFAR10[5:]), seed=0)
    with pytest.raises(SchemaError, match="no class 'cow'"):
        data.halves(folders, (("cow",), ()), seed=0)


def test_what_is_not_known_or_missing_is_refused(tasks: tuple[Task, Task], tmp_path: Path) -> None:
    nowhere = Folders(tmp_path, tmp_path / "none")
    with pytest.raises(SchemaError, match="unknown setting 'magic'; known are analysis"):
        experiment.requested(requested(BUDGETS, nowhere), "magic")
    with pytest.raises(ConfigurationError, match="known are cpu, cuda"):
        requested(BUDGETS, nowhere, device="tpu")
    with pytest.raises(SchemaError, match="unknown condition 'luck'"):
        pairs.learners(config("luck"), tasks, pairs.built(config("luck"), tasks))
    with pytest.raises(DataError, match="give --root"):
        data.halves(nowhere, data.SAME, seed=0)
    few = Learner(pairs.built(config("iiw"), tasks)[0].f, tasks[0], seed=0)
    with pytest.raises(DataError, match="a minibatch takes 5000"):
        train([few, few], replace(TRAINING, batch=5000), CPU)
    done = CliRunner().invoke(app, ["bench", "recombine", "--quick", "--full"])
    assert isinstance(done.exception, ConfigurationError)


def test_images_that_are_not_square_cannot_be_turned(tasks: tuple[Task, Task]) -> None:
    a, _ = tasks
    wide = Labelled(a.training.images_NCSS[:, :, :16], a.training.classes_N)
    net = pairs.built(config("rp"), tasks)[0]
    learner = Learner(net.f, replace(a, training=wide), seed=0, rotation=net.head)
    with pytest.raises(DataError, match="16×32"):
        train([learner], TRAINING, CPU)


def test_the_learning_rate_falls_as_the_budget_says() -> None:
    paper = Training(steps=20_000, batch=512, learning_rate=0.01, decay="tenths")
    assert [paper.rate(s) for s in (0, 4999, 5000, 19_999)] == pytest.approx(
        [1e-2, 1e-2, 1e-3, 1e-5]
    )
    assert Training(10, 1, 0.1, decay="constant").rate(9) == 0.1
    cosine = [Training(100, 1, 0.1).rate(s) for s in range(100)]
    assert max(cosine) == pytest.approx(0.1)
    assert cosine[-1] < 0.001


def row(method: str, accuracy: float, seed: int = 0, **changes: Any) -> Row:
    values: dict[str, Any] = {
        "setting": "analysis", "method": method, "case": "", "direction": "a>b", "seed": seed,
        "accuracy": accuracy, "chance": 16.7, "own_accuracy": 80.0, "kept_accuracy": accuracy / 2,
        "correlation": 0.3,
    }  # fmt: skip
    return Row(**{**values, **changes})


MEASURED = [
    row(method, accuracy + seed, seed, direction=direction)
    for method, accuracy in (
        ("independent", 17.0), ("iiw", 30.0), ("rp", 40.0), ("dcc", 60.0), (ALL, 75.0),
    )
    for seed in range(3)
    for direction in ("a>b", "b>a")
] + [
    row(UPPER, 80.0 + seed, seed, direction=direction, kept_accuracy=None, correlation=None)
    for seed in range(3)
    for direction in ("a>a", "b>b")
]  # fmt: skip


def test_every_row_has_the_upper_bound_of_its_seed_and_net() -> None:
    filled = rows.bounded(MEASURED)
    assert all(one.upper_bound == 80.0 + one.seed for one in filled)
    cases = [row(ALL, 1.0, case="x"), row(UPPER, 9.0, case="x", direction="a>a"), *MEASURED]
    assert rows.bounded(cases)[0].upper_bound == 9.0


def test_goals_say_met_and_missed() -> None:
    found = {goal.what: goal.verdict for goal in goals.goals(rows.bounded(MEASURED))}
    assert set(found.values()) == {"met"}
    assert len(found) == 6
    worse = [replace(r, accuracy=20.0) if r.method in (ALL, "rp") else r for r in MEASURED]
    missed = {g.what for g in goals.goals(worse) if g.verdict == "missed"}
    assert missed == {f"{ALL} as a share of the upper bound", "rp above independent nets"}


def test_the_table_fits_a_terminal_and_shows_the_papers_numbers_on_the_page() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(tables.terminal(experiment.grid(rows.bounded(MEASURED))))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("independent" in line and "18.0 ±2.5" in line for line in lines)
    page = tables.markdown(experiment.grid(rows.bounded(MEASURED), papers=True))
    assert "| upper bound | 81.0 ±2.5 | 81.0 ±2.5 | 80.0 ±0.0 | – | – | 85.6 |" in page


def test_a_setting_is_measured_written_and_drawn(folders: Folders, tmp_path: Path) -> None:
    tiny = replace(QUICK, width=4, photographs=replace(TRAINING, steps=2))
    asked = Recombine(Request(folders, tiny, workers=1), "incremental")
    console = Console(file=io.StringIO())
    outcome = made(asked, tmp_path / "page", console)
    outcome.show(console)
    found = json.loads(json.dumps(outcome.as_json()))
    keys = {"setting", "method", "direction", "seed", "accuracy", "upper_bound", "chance"}
    assert all(keys <= one.keys() for one in found["rows"])
    assert {one["method"] for one in found["rows"]} == {
        "rp", "dcc", ALL, pair_settings.JOINT, UPPER,
    }  # fmt: skip
    assert len(found["rows"]) == 10
    assert {goal["verdict"] for goal in found["goals"]} <= {"met", "open", "missed"}
    page = (tmp_path / "page" / "RESULTS.md").read_text()
    assert "`rootstock bench recombine --setting incremental --seeds 1 --quick`" in page
    for picture in ("recombine-incremental-quick.png", "recombine-incremental-quick-channels.png"):
        assert (tmp_path / "page" / "figures" / picture).stat().st_size > 5000

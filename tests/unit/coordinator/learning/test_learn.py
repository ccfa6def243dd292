"""Growth on the operator's own samples: real digits, a net with two categories."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from rootstock.common.distillation.settings import BackDistillationSettings, TaskLearningSettings
from rootstock.common.errors import ConflictError, DataError, NotFoundError, TransplantError
from rootstock.common.identity.keys import load_or_create
from rootstock.common.image_files.reading import ImageReader
from rootstock.common.nets.graph import ModuleRef
from rootstock.common.nets.spec import ImageForm, TaskSpec
from rootstock.common.weights.manifest import SharedSamples
from rootstock.coordinator.config import SamplesConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.growth.readiness import ready
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.learning.founding import (
    chosen_categories,
    founding_merge,
    waiting_categories,
)
from rootstock.coordinator.learning.learn import Learner
from rootstock.coordinator.learning.operations import Operations
from rootstock.coordinator.merges.commit import Committer
from rootstock.coordinator.merges.own_samples import categories_in, read_own
from rootstock.coordinator.merges.pending import growth_plan
from rootstock.coordinator.merges.runner import MergeRunner
from rootstock.coordinator.merges.samples import FewSamples, few_samples
from rootstock.coordinator.net.verify import verify_version
from rootstock.coordinator.paths import StatePaths, samples_area
from rootstock.coordinator.registry import COORDINATOR, Merge, MergeState, SubmissionState
from tests.support import digits_lab
from tests.support.coordinator_context import receive, teacher
from tests.support.in_process_jobs import InThisProcess
from tests.support.merges import evaluating, merge_runner, report, with_policy

pytestmark = pytest.mark.slow

QUICK = TaskLearningSettings(steps=120, learning_rate=3e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cat/yes are zeros and dog/yes ones, no is other digits: 60 images each."""
    root = tmp_path_factory.mktemp("samples")
    data = load_digits()
    for category, digit in (("cat", 0), ("dog", 1)):
        for side, chosen in (("yes", data.target == digit), ("no", data.target > 1)):
            (root / category / side).mkdir(parents=True)
            for index, image in enumerate(data.images[chosen][:60]):
                picture = Image.fromarray((image * 255 / 16).astype("uint8"))
                picture.resize((32, 32)).save(root / category / side / f"{index}.png")
    return root


@pytest.fixture
def grown(context: CoordinatorContext, tmp_path: Path) -> CoordinatorContext:
    """Version 2 joins dog, by an adapter, beside a founded cat; untrained nets, so far."""
    generous = with_policy(context, max_error=100.0, max_above_teacher=100.0)
    merge = evaluating(generous, tmp_path)
    report(generous, merge)
    asyncio.run(merge_runner(generous).carry(merge.id))
    return generous


def learner(context: CoordinatorContext, folder: Path) -> Learner:
    tree = context.tree()
    assert tree is not None
    return Learner(context.store, tree, folder)


def queue(context: CoordinatorContext, folder: Path, name: str, source: str | None) -> list[Merge]:
    tree = context.tree()
    assert tree is not None
    begin = context.plan.initial_task_modules["classification"]
    found = learner(context, folder).task(name, ["cat", "dog"], begin, source, QUICK)
    ids = Operations(context).learn_task(name, found, source)
    return [context.registry.merges.get(each) for each in ids]


def carry(context: CoordinatorContext, merges: list[Merge]) -> None:
    carrier = MergeRunner(context, Committer(context), InThisProcess())
    for merge in merges:
        tree = context.tree()
        tasks = () if tree is None else tree.task_modules
        assert merge.id in ready(context.registry.merges.open(), tasks)
        asyncio.run(carrier.carry(merge.id))


def test_a_task_is_learned_on_frozen_category_modules_and_joined_to_each(
    grown: CoordinatorContext, folder: Path
) -> None:
    before = grown.tree()
    assert before is not None
    merges = queue(grown, folder, "round", None)
    assert [(m.category, m.operation) for m in merges] == [
        ("cat", "learn-task"),
        ("dog", "connect"),
    ]
    # The second join waits for the task module that the first brings, and both are planned.
    paths = StatePaths(grown.config)
    paths.plan.write_bytes(grown.plan.canonical())
    planned = growth_plan(grown.net, grown.config).operations
    assert [(each.wave, each.operation) for each in planned] == [(1, "learn-task"), (2, "connect")]
    carry(grown, merges)
    tree = grown.tree()
    assert tree is not None
    assert before.digests() < tree.digests()
    for category in ("cat", "dog"):
        edge = tree.edge(category, "round")
        assert edge.adapter is None
        assert edge.error is not None
        assert edge.error < 20, "zeros and ones are easy, even on untrained features"
        assert before.edge(category, "classification") == tree.edge(category, "classification")
    view = grown.net
    assert verify_version(view, 4, grown.key.public_key) == []
    record = view.commit(3).merge
    assert (record["operation"], record["site"]) == ("learn-task", COORDINATOR)
    learned = merges[0].job_result
    assert learned is not None
    assert record["own_samples/judged_on"] == learned["judged_on"]


def test_a_fine_tuned_module_is_a_new_one_and_keeps_the_adapters(
    grown: CoordinatorContext, folder: Path
) -> None:
    tree = grown.tree()
    assert tree is not None
    merges = queue(grown, folder, "classification-2", "classification")
    carry(grown, merges)
    after = grown.tree()
    assert after is not None
    assert after.task_modules["classification"] == tree.task_modules["classification"]
    assert after.task_modules["classification-2"] != tree.task_modules["classification"]
    for category in ("cat", "dog"):
        old, new = after.edge(category, "classification"), after.edge(category, "classification-2")
        assert old.adapter == new.adapter
    assert after.edge("dog", "classification-2").adapter is not None


def test_a_further_join_takes_the_best_of_what_there_is(
    grown: CoordinatorContext, folder: Path
) -> None:
    begin = grown.plan.initial_task_modules["classification"]
    tree = grown.tree()
    assert tree is not None
    found = learner(grown, folder).task("round", ["cat"], begin, None, QUICK)
    (founding,) = Operations(grown).learn_task("round", found, None)
    carry(grown, [grown.registry.merges.get(founding)])
    tree = grown.tree()
    assert tree is not None
    settings = BackDistillationSettings(steps=150)
    join = learner(grown, folder).connection("dog", "round", settings)
    plain = learner(grown, folder).connection("dog", "round", BackDistillationSettings(steps=1))
    assert join.error <= plain.error
    assert join.judged_on > 20
    connecting = Operations(grown).connect("dog", "round", join)
    carry(grown, [grown.registry.merges.get(connecting)])
    joined = grown.tree()
    assert joined is not None
    edge = joined.edge("dog", "round")
    assert (edge.adapter, edge.error) == (join.adapter, join.error)
    assert verify_version(grown.net, 4, grown.key.public_key) == []
    with pytest.raises(ConflictError, match="'dog' is joined to task 'round' already"):
        learner(grown, folder).connection("dog", "round", settings)


def test_what_is_learned_for_a_module_that_is_gone_is_not_joined(
    grown: CoordinatorContext, folder: Path
) -> None:
    merges = queue(grown, folder, "round", None)
    carry(grown, merges[:1])
    asyncio.run(Committer(grown).roll_back(3, "wrong", and_later=False))
    carry(grown, merges[1:])
    ended = grown.registry.merges.get(merges[1].id)
    assert ended.state is MergeState.FAILED
    assert "rolled back in the meantime" in ended.reason


def test_a_task_worse_than_the_rule_is_not_merged(grown: CoordinatorContext, folder: Path) -> None:
    merges = queue(grown, folder, "round", None)
    strict = with_policy(grown, max_error=0.0)
    grown.registry.merges.update(
        merges[0].id, job_result={**(merges[0].job_result or {}), "error": 30.0}
    )
    carry(strict, merges[:1])
    ended = grown.registry.merges.get(merges[0].id)
    assert ended.state is MergeState.REJECTED
    assert "what was learned has an error of 30.0%" in ended.reason


def test_what_does_not_fit_is_refused(
    grown: CoordinatorContext, folder: Path, tmp_path: Path
) -> None:
    found = learner(grown, folder)
    begin = grown.plan.initial_task_modules["classification"]
    with pytest.raises(ConflictError, match="already has a task module 'classification'"):
        found.task("classification", ["cat"], begin, None, QUICK)
    with pytest.raises(NotFoundError, match="no category 'cow'; it has: cat, dog"):
        found.task("round", ["cow"], begin, None, QUICK)
    with pytest.raises(NotFoundError, match="no task module 'depth'; it has: classification"):
        found.connection("cat", "depth", BackDistillationSettings())
    with pytest.raises(TransplantError, match="name a task to fine-tune"):
        found.task("round", ["cat"], None, None, QUICK)
    assert categories_in(folder) == ["cat", "dog"]
    with pytest.raises(DataError, match="is not a folder"):
        categories_in(tmp_path / "nowhere")
    (tmp_path / "cat" / "yes").mkdir(parents=True)
    with pytest.raises(DataError, match=r"cat/yes: holds no image"):
        read_own(tmp_path, "cat", ImageForm((3, 32, 32)), ImageReader(), digits_lab.fail)
    (tmp_path / "cat" / "yes" / "one.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"one.png: cannot be read as an image"):
        read_own(tmp_path, "cat", ImageForm((3, 32, 32)), ImageReader(), digits_lab.fail)


def test_samples_are_read_as_labs_read_theirs(folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folder, tmp_path / "samples"))
    plain = read_own(folder, "cat", ImageForm((3, 32, 32)), ImageReader(), digits_lab.fail)
    (folder / ".cat" / "yes").mkdir(parents=True)
    assert categories_in(folder) == ["cat", "dog"]
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        shutil.copytree(folder / "cat" / "yes", folder / "cat" / "yes" / name)
    (folder / "cat" / "yes" / "again").symlink_to(".")
    os.mkfifo(folder / "cat" / "no" / "pipe.png")
    for path in (folder / "cat").glob("*/*.png"):
        if path.is_file():
            with Image.open(path) as image:
                grey = np.asarray(image.convert("L"))
            Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    doubts: list[str] = []
    deep = read_own(folder, "cat", ImageForm((3, 32, 32)), ImageReader(), doubts.append)
    assert torch.equal(deep.images_NCHW, plain.images_NCHW)
    assert torch.equal(deep.judging_N, plain.judging_N)
    assert [next(word for word in ("links", "no regular", "scaled") if word in doubt)
            for doubt in doubts] == ["links", "no regular", "scaled"]  # fmt: skip
    for path in (folder / "cat" / "yes").glob("*.png"):
        path.rename(path.with_suffix(".dcm"))
    with pytest.raises(DataError, match=r"yes: holds no image; .* left out: \.dcm"):
        read_own(folder, "cat", ImageForm((3, 32, 32)), ImageReader(), doubts.append)


def test_no_image_changes_sides(folder: Path) -> None:
    first, again = (
        read_own(folder, "cat", ImageForm((3, 32, 32)), ImageReader(), digits_lab.fail)
        for _ in range(2)
    )
    assert bool((first.judging_N == again.judging_N).all())
    images_NCHW = first.images_NCHW
    learning, judging = (first.part(images_NCHW, judging=each) for each in (False, True))
    assert len(learning.labels_N) + len(judging.labels_N) == 120
    assert 20 < len(judging.labels_N) < 55


def test_the_operators_own_samples_join_those_that_a_lab_shares(
    context: CoordinatorContext, folder: Path, tmp_path: Path
) -> None:
    task = TaskSpec(name="classification")
    config = context.config.model_copy(update={"samples": SamplesConfig(folder=folder)})
    own = replace(context, config=config)
    cat = teacher(context, "cat-lab", "cat")
    given = SharedSamples(
        count=4,
        blob=put_tensors(
            context.store.area(samples_area("sub-0001")),
            {"images": torch.zeros(4, 3, 32, 32), "labels": torch.ones(4)},
        ),
    )
    shares = cat.model_copy(update={"shared_samples": given})
    submission = receive(context, shares)
    merge = context.registry.merges.create(
        submission, "cat", "classification", OperationKind.NEW_CATEGORY
    )
    before = list(context.store.blobs())
    assert few_samples(context, merge, cat, task).numbers().flat() == {}
    assert few_samples(context, merge, shares, task) == FewSamples(given, None)
    alone = few_samples(own, merge, cat, task)  # 32 of the 120 judge, and teach nothing
    assert alone.numbers().flat() == {"few_samples": 88.0, "own_samples": 88.0}
    both = few_samples(own, merge, shares, task)
    assert both.numbers().flat() == {"few_samples": 92.0, "own_samples": 88.0}
    assert both == FewSamples(given, alone.own)
    # Neither lies among the blobs that labs can ask for.
    assert list(context.store.blobs()) == before
    # Yes and no say nothing about pixels; of cows there are none; a broken image costs no merge.
    pixels = TaskSpec(name="segmentation", kind="binary-segmentation")
    assert few_samples(own, merge, shares, pixels) == FewSamples(given, None)
    cow = teacher(context, "cow-lab", "cow")
    assert few_samples(own, merge, cow, task) == FewSamples(None, None)
    broken = tmp_path / "cat" / "yes"
    broken.mkdir(parents=True)
    (broken / "one.png").write_bytes(b"no image")
    config = context.config.model_copy(update={"samples": SamplesConfig(folder=tmp_path)})
    broken_own = replace(context, config=config)
    assert few_samples(broken_own, merge, shares, task) == FewSamples(given, None)


@pytest.fixture
def waiting(context: CoordinatorContext, tmp_path: Path) -> CoordinatorContext:
    """Teachers of cat and dog wait; the merge that would found the net with cat is held."""
    for category in ("cat", "dog"):
        key = load_or_create(tmp_path / f"{category}-key")
        submission = receive(context, teacher(context, f"{category}-lab", category), key)
        context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
    first = context.registry.submissions.undecided()[0]
    context.registry.merges.create(
        first.id, "cat", "classification", OperationKind.FOUND, released=False
    )
    return context


def found(context: CoordinatorContext, folder: Path) -> Merge:
    registry, store = context.registry, context.store
    merge = founding_merge(registry)
    tree = waiting_categories(registry, merge, context.plan)
    chosen = chosen_categories(tree, merge.category, categories_in(folder))
    begin = context.plan.initial_task_modules[merge.task]
    learned = Learner(store, tree, folder).task(merge.task, chosen, begin, None, QUICK)
    Operations(context).found_net(merge.id, learned)
    return registry.merges.get(merge.id)


def test_a_net_is_founded_on_what_several_labs_category_modules_have_in_common(
    waiting: CoordinatorContext, folder: Path
) -> None:
    merge = found(waiting, folder)
    carry(waiting, [merge])
    tree = waiting.tree()
    assert tree is not None
    cat, g = tree.category_modules["cat"], tree.task_modules["classification"]
    assert waiting.owner("cat") == "cat-lab", "the category stays its lab's"
    assert waiting.teacher_of(g.submission).site == COORDINATOR
    assert g.blob != waiting.teacher_of(cat.submission).task_modules["classification"]
    error = tree.edge("cat", "classification").error
    assert error is not None
    assert error < 20
    view = waiting.net
    assert verify_version(view, 1, waiting.key.public_key) == []
    # It serves dogs, too: g saw what both modules give.
    dog = waiting.registry.submissions.undecided()
    joined = tree.with_category(
        "dog",
        ModuleRef(blob=cat.blob, architecture=cat.architecture, submission=dog[0].manifest_digest),
    )
    join = Learner(view.store, joined, folder).connection(
        "dog", "classification", BackDistillationSettings(steps=1)
    )
    assert (join.how, join.error < 20) == ("no adapter", True)
    with pytest.raises(ConflictError, match="founded already"):
        founding_merge(waiting.registry)


def test_what_was_learned_to_found_a_net_is_taken_in_once(
    waiting: CoordinatorContext, folder: Path
) -> None:
    merge = found(waiting, folder)
    assert merge.released
    with pytest.raises(ConflictError, match="right now"):
        founding_merge(waiting.registry)
    with pytest.raises(ConflictError, match="went ahead in the meantime"):
        waiting.registry.merges.release_with(merge.id, {})
    # The coordinator's own submission calls for no merge.
    paths = StatePaths(waiting.config)
    paths.plan.write_bytes(waiting.plan.canonical())
    planned = growth_plan(waiting.net, waiting.config)
    assert [(each.operation, each.category) for each in planned.operations] == [
        ("found", "cat"),
        ("new-category", "dog"),
    ]
    assert planned.refusals == ()


def test_a_net_cannot_be_founded_on_what_does_not_wait(
    context: CoordinatorContext, waiting: CoordinatorContext, folder: Path
) -> None:
    tree = waiting_categories(waiting.registry, founding_merge(waiting.registry), context.plan)
    assert chosen_categories(tree, "cat", ["dog", "cow", "cat"]) == ["cat", "dog"]
    with pytest.raises(NotFoundError, match="no teacher net of category 'cow' waits"):
        chosen_categories(tree, "cat", ["cat"], ["cow"])
    with pytest.raises(NotFoundError, match="'cat' founds the net"):
        chosen_categories(tree, "cat", ["dog"])


def test_no_net_is_founded_before_a_teacher_waits(context: CoordinatorContext) -> None:
    with pytest.raises(NotFoundError, match="no teacher net waits"):
        founding_merge(context.registry)

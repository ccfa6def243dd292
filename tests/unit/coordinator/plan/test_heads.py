"""Auxiliary heads: published by hand or at the founding, replaced, retired."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rootstock.common.compatible.rotation import RotationSettings
from rootstock.common.errors import ConflictError, DataError, NotFoundError
from rootstock.common.nets.architectures import (
    build_category_module,
    build_head,
    initialise,
    input_shape,
)
from rootstock.common.nets.graph import ModuleRef
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.protocol import Heads, Plan
from rootstock.common.weights import safetensors_io
from rootstock.coordinator.config import GrowthConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.plan.heads import (
    HeadsFile,
    founder_of,
    heads_of_net,
    learn_rotation,
    publish,
    retire,
)
from rootstock.coordinator.registry import MergeState
from rootstock.coordinator.service.messages import watch_response
from tests.support import digits_lab
from tests.support.coordinator_context import receive, teacher
from tests.support.merges import reconcile

pytestmark = pytest.mark.slow


def heads_file(context: CoordinatorContext) -> HeadsFile:
    return HeadsFile(StatePaths(context.config).heads)


def told(context: CoordinatorContext) -> list[tuple[int, str]]:
    """Return what any lab hears of heads."""
    events = context.registry.events.after("any-lab", 0, 100)
    messages = [watch_response(e) for e in events if e.kind == "heads"]
    return [(message.heads.number, message.heads.origin) for message in messages]


def test_published_replaced_retired(context: CoordinatorContext) -> None:
    file, modules = heads_file(context), dict(context.plan.initial_task_modules)
    elsewhere = heads_file(context)  # as another process sees it
    assert elsewhere.current() is None
    with pytest.raises(NotFoundError, match="no heads are published"):
        retire(file, context.registry, "none")
    first = publish(file, context.registry, "initial weights", modules)
    assert elsewhere.current() == first
    with pytest.raises(ConflictError, match="just these heads are published, as number 1"):
        publish(file, context.registry, "initial weights", modules)
    second = publish(file, context.registry, "net version 3", modules)
    assert (first.number, second.number) == (1, 2)
    assert first.content_digest() != second.content_digest()
    assert elsewhere.current() == second
    assert retire(elsewhere, context.registry, "a better net") == second
    assert file.current() is None
    third = publish(file, context.registry, "net version 3", modules)
    assert third.number == 4  # the retirement has a number, too
    assert told(context) == [
        (1, "initial weights"),
        (2, "net version 3"),
        (0, "retired: a better net"),
        (4, "net version 3"),
    ]


def test_the_founding_net_s_task_modules_become_heads_by_themselves(
    context: CoordinatorContext,
) -> None:
    plan = context.config.plan.model_copy(update={"heads": "founder"})
    config = context.config.model_copy(update={"plan": plan, "growth": GrowthConfig()})
    context = replace(context, config=config)
    receive(context, teacher(context, "cat-lab", "cat"))
    file = heads_file(context)
    reconcile(context, until=lambda: file.current() is not None)
    heads, tree = file.current(), context.tree()
    assert heads is not None
    assert tree is not None
    assert heads.task_modules == {"classification": tree.task_modules["classification"].blob}
    assert heads.origin == "net version 1"
    assert founder_of(tree, context.plan) == "cat"
    # What the operator has retired does not come back by itself.
    retire(file, context.registry, "test")
    second = receive(context, teacher(context, "cat-lab-2", "cat"))
    merges = context.registry.merges
    reconcile(
        context,
        until=lambda: (
            any(m.state is MergeState.FAILED for m in merges.all())
            or context.registry.submissions.get(second).state.value == "refused"
        ),
    )
    assert file.current() is None


def test_a_net_of_another_architecture_gives_no_heads(context: CoordinatorContext) -> None:
    receive(context, teacher(context, "cat-lab", "cat"))
    reconcile(context, until=lambda: context.head() is not None)
    tree = context.tree()
    assert tree is not None
    assert list(heads_of_net(tree, context.plan)) == ["classification"]
    wide = context.plan.architecture.model_copy(update={"settings": {"width": 8}})
    with pytest.raises(NotFoundError, match="no task module of the plan's architecture"):
        heads_of_net(tree, context.plan.model_copy(update={"architecture": wide}))
    with pytest.raises(NotFoundError, match="joined with no adapter"):
        founder_of(tree.model_copy(update={"edges": ()}), context.plan)


def pictures(folder: Path, count: int) -> Path:
    """Write pictures whose upper half is bright: which way is up can be told."""
    (folder / "deep").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        pixels = generator.integers(0, 80, (40, 48, 3), dtype=np.uint8)
        pixels[:20] += 120
        Image.fromarray(pixels).save(folder / "deep" / f"{number}.png")
    return folder


def test_a_rotation_head_is_learned_from_unlabelled_pictures(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    plan, settings = context.plan, RotationSettings(steps=60, learning_rate=1e-2)
    images = pictures(tmp_path / "pictures", 30)
    module = initial_module(plan)
    entry, share = learn_rotation(context.store, plan, module, images, settings, digits_lab.fail)
    assert share > 0.9
    head = build_head(plan.architecture, 4)
    safetensors_io.load_module(head, context.store.local_path(entry.digest), entry)
    assert all(torch.isfinite(p).all() for p in head.parameters())
    heads = publish(heads_file(context), context.registry, "test", {}, entry)
    assert [blob.digest for blob in heads.blobs()] == [entry.digest]
    few = pictures(tmp_path / "few", 4)
    with pytest.raises(DataError, match="from 4 images; give"):
        learn_rotation(context.store, plan, module, few, settings, digits_lab.fail)
    with pytest.raises(DataError, match="is not a folder"):
        learn_rotation(context.store, plan, module, tmp_path / "no", settings, digits_lab.fail)


def initial_module(plan: Plan) -> ModuleRef:
    return ModuleRef(
        blob=plan.initial_category_module, architecture=plan.architecture, submission="0" * 64
    )


def test_a_rotation_head_is_learned_above_an_extractor_of_another_architecture(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    plan = context.plan
    size = input_shape(plan.architecture)[1]
    extractor = ArchitectureSpec(
        name="small-vgg",
        split=plan.architecture.split,
        settings={"input_size": size, "width": 6},
    )
    spec = plan.architecture.model_copy(update={"extractor": extractor})
    f = initialise(build_category_module(spec), 0)
    module = initial_module(plan).model_copy(
        update={"blob": put_tensors(context.store, f.state_dict()), "architecture": spec}
    )
    images = pictures(tmp_path / "pictures", 30)
    settings = RotationSettings(steps=60, learning_rate=1e-2)
    entry, share = learn_rotation(context.store, plan, module, images, settings, digits_lab.fail)
    assert share > 0.9
    # Labs below whose nets it is published read it as any other: it is the plan's.
    head = build_head(plan.architecture, 4)
    safetensors_io.load_module(head, context.store.local_path(entry.digest), entry)


def test_a_retired_document_has_nothing_to_download() -> None:
    assert Heads(number=3, origin="retired: x", task_modules={}).blobs() == []

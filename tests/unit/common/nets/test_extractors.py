"""A net whose category module is of another architecture than its task modules."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch

from rootstock.common.distillation.solvers.biases import feature_means
from rootstock.common.errors import SchemaError
from rootstock.common.nets.architectures import (
    build_category_module,
    build_task_module,
    feature_shape,
    initial_modules,
    initialise,
    input_shape,
    last_layer,
)
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec

TASK = TaskSpec(name="classification")
PLAN = ArchitectureSpec(
    name="small-resnet", split="block2_1", settings={"input_size": 32, "width": 4, "blocks": 1}
)
WIDE = ArchitectureSpec(
    name="wide-resnet", split="block2_1", settings={"input_size": 32, "widen": 2, "blocks": 1}
)
MOBILE = ArchitectureSpec(
    name="mobilenetv2",
    split="block4",
    settings={"input_size": 32, "output_stride": 8, "width": 0.5},
)


def below(extractor: ArchitectureSpec | None, plan: ArchitectureSpec = PLAN) -> ArchitectureSpec:
    return plan.model_copy(update={"extractor": extractor})


def changed(spec: ArchitectureSpec, split: str | None = None, **settings: Any) -> ArchitectureSpec:
    return spec.model_copy(
        update={"split": split or spec.split, "settings": spec.settings | settings}
    )


@pytest.mark.parametrize("extractor", [WIDE, MOBILE])
def test_f_is_the_extractor_s_projected_to_the_plan_s_width(extractor: ArchitectureSpec) -> None:
    spec = below(extractor)
    assert input_shape(spec) == (3, 32, 32)
    assert feature_shape(spec) == feature_shape(PLAN) == (8, 16, 16)
    own = build_category_module(extractor)
    f = initialise(build_category_module(spec), 0).eval().requires_grad_(False)
    g = build_task_module(spec, TASK).eval()
    assert [name for name, _ in f.named_children()] == [
        *(name for name, _ in own.named_children()),
        "proj",
    ]
    assert last_layer(f) == "proj"
    assert g.state_dict().keys() == build_task_module(PLAN, TASK).state_dict().keys()
    x_NCHW = f(torch.rand(2, 3, 32, 32))
    assert x_NCHW.shape == (2, 8, 16, 16)
    # No ReLU follows: features of either sign reach the 1×1 convolution's end.
    assert float(x_NCHW.min()) < 0 < float(x_NCHW.max())
    assert g(x_NCHW).shape == (2, 1)


def test_an_extractor_as_wide_as_the_plan_is_not_projected() -> None:
    # 8 channels at 0.25: the plan's own number.
    f = build_category_module(below(changed(MOBILE, width=0.25)))
    assert last_layer(f) == "block4"


def test_initial_weights_are_those_of_the_whole_net() -> None:
    f, heads = initial_modules(below(WIDE), [TASK], seed=0)
    assert last_layer(f) == "proj"
    assert heads["classification"](f.eval()(torch.rand(2, 3, 32, 32))).shape == (2, 1)


@pytest.mark.parametrize(
    ("extractor", "said"),
    [
        (below(MOBILE, WIDE), r"^extractor 'wide-resnet'.*extractor of its own; name that one al"),
        (
            changed(WIDE, input_size=64),
            r"takes images of \(3, 64, 64\), architecture 'small-resnet' takes \(3, 32, 32\)",
        ),
        (changed(WIDE, in_channels=1), r"images of \(1, 32, 32\).*set its input_size and in_chan"),
        (
            changed(WIDE, "block1_1"),
            r"split 'block1_1': its features are maps of 32×32, at split 'block2_1' of "
            r"architecture 'small-resnet' they are 16×16; choose another split",
        ),
        (changed(MOBILE, output_stride=32), "split 'block4': its features are maps of 4×4"),
        (changed(WIDE, "block9_1"), "'wide-resnet' has no split point 'block9_1'.*block2_1"),
        (changed(WIDE, widen=1000), "settings of architecture 'wide-resnet'.*widen"),
        (ArchitectureSpec(name="resnet9", split="x"), "unknown architecture 'resnet9'"),
    ],
)
@pytest.mark.parametrize("build", [input_shape, feature_shape, build_category_module])
def test_what_does_not_fit_is_refused(build: Any, extractor: ArchitectureSpec, said: str) -> None:
    build(below(WIDE))
    with pytest.raises(SchemaError, match=said):
        build(below(extractor))


def test_documents_without_an_extractor_are_written_as_before() -> None:
    written = b'{"name":"small-vgg","settings":{"width":4},"split":"pool1"}'
    spec = ArchitectureSpec(name="small-vgg", settings={"width": 4}, split="pool1")
    assert spec.canonical() == written
    assert spec.content_digest() == hashlib.sha256(written).hexdigest()
    assert ArchitectureSpec.parse(written, what="it") == spec
    # One that has been there and is gone leaves no trace.
    assert below(WIDE, spec).above().canonical() == written


def test_documents_with_one_are_read_as_they_were_written() -> None:
    spec = below(WIDE)
    assert spec.canonical() == (
        b'{"extractor":{"name":"wide-resnet","settings":{"blocks":1,"input_size":32,"widen":2},'
        b'"split":"block2_1"},"name":"small-resnet","settings":{"blocks":1,"input_size":32,'
        b'"width":4},"split":"block2_1"}'
    )
    assert ArchitectureSpec.parse(spec.canonical(), what="it") == spec
    assert spec.content_digest() != PLAN.content_digest()


def test_both_parts_are_named() -> None:
    assert (below(WIDE).above(), below(WIDE).below()) == (PLAN, WIDE)
    assert (PLAN.above(), PLAN.below()) == (PLAN, PLAN)
    assert PLAN.described() == "'small-resnet', split 'block2_1'"
    assert below(MOBILE).described() == (
        "'small-resnet', split 'block2_1', extractor 'mobilenetv2', split 'block4'"
    )


def test_means_of_projected_features_are_those_that_were_shipped() -> None:
    """No ReLU follows "proj": what an estimate would make of its moments is not x's mean."""
    f = build_category_module(below(WIDE))
    mean_C = torch.linspace(-2, 2, 8)
    shipped = {"mean/proj": mean_C, "variance/proj": torch.ones(8)}
    found = feature_means(f, shipped)
    assert found is not None
    assert torch.equal(found, mean_C)
    # Without it there is no answer: the last convolution's variance alone says nothing.
    assert feature_means(f, {"variance/proj": torch.ones(8)}) is None

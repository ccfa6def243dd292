"""A small teacher, the statistics of real digits that it ships, and a quick dream."""

from collections.abc import Mapping

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rootstock.common.distillation.auto.dream import DreamSource, moments
from rootstock.common.distillation.settings import DreamSettings
from rootstock.common.nets.architectures import initial_modules, input_shape
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec
from tests.support.solver_nets import SPEC, task_module

IMAGE = input_shape(SPEC)


QUICK = DreamSettings(images=12, steps=40, jitter=1)


def category_module(spec: ArchitectureSpec = SPEC) -> nn.Sequential:
    return initial_modules(spec, [TaskSpec(name="classification")], seed=1)[0].eval()


def digits(count: int = 64) -> Tensor:
    """Return real images (N, 3, 32, 32), in the nets' range."""
    images = torch.tensor(load_digits().images[:count], dtype=torch.float32)[:, None] / 8 - 1
    return F.interpolate(images, IMAGE[1:], mode="bilinear").repeat(1, 3, 1, 1)


def convolutions(*modules: nn.Module) -> dict[str, nn.Module]:
    return {
        name: layer
        for module in modules
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d)
    }


@torch.no_grad()
def shipped(f: nn.Sequential, g: nn.Sequential) -> dict[str, Tensor]:
    with moments(convolutions(f, g)) as found:
        g(f(digits()))
    return {
        f"{kind}/{name}": value
        for name, pair in found.items()
        for kind, value in zip(("mean", "variance"), pair, strict=True)
    }


def centred_teacher() -> nn.Sequential:
    """Return a teacher that calls half of the digits its category."""
    teacher = task_module(1).eval()
    with torch.no_grad():
        y_N = teacher(category_module()(digits())).flatten()
        last = teacher.get_submodule("fc7")
        assert isinstance(last, nn.Linear)
        last.bias.sub_(y_N.median())
    return teacher


def source(changes: Mapping[str, Tensor | None] | None = None) -> DreamSource:
    f, g = category_module(), centred_teacher()
    statistics = {**shipped(f, g), "feature_norm": torch.ones(1), **(changes or {})}
    kept = {name: value for name, value in statistics.items() if value is not None}
    return DreamSource(f, g, IMAGE, kept)

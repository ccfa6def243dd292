"""Generic architectures: their layers in order, their settings, and where they split into f and g.

An architecture is one plain sequence of named layers. A split point is the name of a layer: the
category module f ends with it, the task module g starts after it, so f followed by g is always the
whole net. Modules have torch's default values until weights are loaded; building them leaves the
global random state as it was. To add one: a class with its settings and layers, and its name in
`ARCHITECTURES`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from rootstock.common.documents import first_problem
from rootstock.common.errors import SchemaError
from rootstock.common.nets import units
from rootstock.common.nets.declaration import Architecture, Layer, Segmenting, sequence
from rootstock.common.nets.efficientnet import EfficientNetLite0
from rootstock.common.nets.fcn import SCORES
from rootstock.common.nets.library import LibraryNet
from rootstock.common.nets.mobilenet import MobileNetV2
from rootstock.common.nets.resnet import ResNet18, ResNet34, ResNet50, SmallResNet, WideResNet
from rootstock.common.nets.spec import (
    ArchitectureSpec,
    ImageForm,
    Preprocessing,
    Setting,
    Shape,
    TaskSpec,
)
from rootstock.common.nets.tailored.resnet import NAME as TAILORED
from rootstock.common.nets.tailored.resnet import TailoredResNet
from rootstock.common.nets.units import Units, needs_units, require_units
from rootstock.common.nets.vgg import SmallVgg, Vgg16
from rootstock.common.nets.vit import DeiTSmall, DeiTTiny

_OUTPUTS = 1
"""Outputs y of a task module: one logit, for an image or for every pixel."""

PROJECTION = "proj"
"""Name of the 1×1 convolution that `projected` adds."""

ARCHITECTURES: dict[str, type[Architecture]] = {
    "small-vgg": SmallVgg,
    "vgg16": Vgg16,
    "small-resnet": SmallResNet,
    "wide-resnet": WideResNet,
    "resnet18": ResNet18,
    "resnet34": ResNet34,
    "resnet50": ResNet50,
    "mobilenetv2": MobileNetV2,
    "efficientnet-lite0": EfficientNetLite0,
    "deit-tiny": DeiTTiny,
    "deit-small": DeiTSmall,
    TAILORED: TailoredResNet,
}


class SplitPoint(NamedTuple):
    """A layer that f may end with."""

    name: str
    shape: Shape
    """Of x = f(I)."""
    signed: bool
    """Whether x may be negative."""
    below: int
    """Parameters of f."""
    above: int
    """Parameters of a g that classifies."""


def split_points(name: str, settings: Mapping[str, Setting]) -> list[SplitPoint]:
    """Return where an architecture splits, lowest first; SchemaError if there is no such net."""
    try:
        spec = ArchitectureSpec(name=name, split="any", settings=dict(settings))
    except ValidationError as error:
        raise SchemaError(f"architecture '{name}': {first_problem(error)}") from error
    architecture = _configured(spec)
    splits = frozenset(architecture.splits())
    points: list[SplitPoint] = []
    below = 0
    with torch.device("meta"):  # shapes only
        x = torch.empty(1, architecture.in_channels, *[architecture.input_size] * 2)
        for layer, module in sequence(architecture.layers(_OUTPUTS)).eval().named_children():
            x = module(x)
            below += sum(parameter.numel() for parameter in module.parameters())
            if layer in splits:
                _, channels, height, width = x.shape
                shape = int(channels), int(height), int(width)
                signed = architecture.gives_signed(layer)
                points.append(SplitPoint(layer, shape, signed, below, 0))
    return [point._replace(above=below - point.below) for point in points]


def input_shape(spec: ArchitectureSpec) -> Shape:
    """Return (C, H, W) of the images I that f takes; SchemaError if the net cannot be built."""
    if spec.extractor is not None:
        _require_extractor(spec.above(), spec.extractor)
    shape = _image_shape(spec)
    require_units(spec.preprocessing, shape[0])
    return shape


def own_name(spec: ArchitectureSpec, published: str) -> str:
    """Return our name of a tensor in the published weights of an architecture."""
    return _configured(spec).own_name(published)


def own_tensor(spec: ArchitectureSpec, name: str, published: Tensor) -> Tensor:
    """Return a tensor of published weights in the shape that ours of that name has."""
    return _configured(spec).own_tensor(name, published)


def image_form(spec: ArchitectureSpec) -> ImageForm:
    """Return how images are cut and resized for f."""
    return ImageForm(input_shape(spec), spec.preprocessing)


def feature_shape(spec: ArchitectureSpec) -> Shape:
    """Return (C, H, W) of the features x = f(I), which g takes."""
    input_shape(spec)
    return _map_shape(spec.above())


def takes_signed(spec: ArchitectureSpec) -> bool:
    """Return whether what g takes may be negative: an adapter below it then ends without a ReLU."""
    return _configured(spec).gives_signed(spec.split)


def gives_signed(spec: ArchitectureSpec) -> bool:
    """Return whether x = f(I) may be negative."""
    below = spec.below()
    return _projects(spec) or _configured(below).gives_signed(below.split)


def _projects(spec: ArchitectureSpec) -> bool:
    """Return whether f ends in a projection: its extractor's features have another width."""
    return spec.extractor is not None and feature_shape(spec.extractor)[0] != feature_shape(spec)[0]


def build_category_module(spec: ArchitectureSpec) -> nn.Sequential:
    """Build f: the layers up to and including the split point, named.

    An extractor of another architecture and width ends in a projection: `projected`. Where the plan
    has units of its own, they are the first layer.
    """
    if spec.extractor is None:
        f = sequence(_parts(spec)[0])
    else:
        f = build_category_module(spec.extractor)
        if _projects(spec):
            f = projected(f, spec.extractor, feature_shape(spec)[0])
    if not needs_units(spec.preprocessing):
        return f
    first = units.NAME, Units(spec.preprocessing, input_shape(spec)[0])
    return nn.Sequential(OrderedDict([first, *f.named_children()]))


def build_task_module(spec: ArchitectureSpec, task: TaskSpec) -> nn.Sequential:
    """Build g: the layers after the split point, named, ending in the task's outputs.

    One logit y for an image, or for a segmentation (1, H, W) of the image's size.
    """
    _, layers = _parts(spec)
    if task.kind == "binary-segmentation":
        architecture = _configured(spec)
        if not isinstance(architecture, Segmenting):
            able = [name for name, kind in ARCHITECTURES.items() if issubclass(kind, Segmenting)]
            raise SchemaError(
                f"architecture '{spec.name}' has no task module of kind '{task.kind}', which task "
                f"'{task.name}' asks for; architectures that have one: {', '.join(able)}"
            )
        layers = architecture.segmentation_layers(spec.split, _OUTPUTS)
    return sequence(layers)


def build_head(spec: ArchitectureSpec, outputs: int) -> nn.Sequential:
    """Build a classifier of that many classes above f: the layers of g, with other outputs."""
    return sequence(_parts(spec, outputs)[1])


def projected(category_module: nn.Sequential, spec: ArchitectureSpec, width: int) -> nn.Sequential:
    """End f with a 1×1 convolution, "proj", so that extractors of any width fit one head.

    Compatible Representations, section 5.2. `spec` is what f was built from, `width` the channels
    that the head takes. The map stays as large as it was; a head that ends in a global pooling
    takes maps of any size.
    """
    channels, _, _ = feature_shape(spec)
    (projection,) = sequence([(PROJECTION, lambda: nn.Conv2d(channels, width, 1))])
    layers = [*category_module.named_children(), (PROJECTION, projection)]
    return nn.Sequential(OrderedDict(layers))


def last_layer(category_module: nn.Sequential) -> str:
    """Return the name of f's last layer, which names statistics of x = f(I)."""
    return [name for name, _ in category_module.named_children()][-1]


def measured_layers(
    category_module: nn.Sequential, *task_modules: nn.Module
) -> dict[str, nn.Module]:
    """Return the layers that statistics are of: f's and g's convolutions, and f's last layer.

    An extractor of another architecture may have layers that are named as g's are: f's count then.
    """
    layers: dict[str, nn.Module] = {}
    for module in (category_module, *task_modules):
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Conv2d):
                layers.setdefault(name, layer)
    return layers | {last_layer(category_module): category_module[-1]}


def initial_modules(
    spec: ArchitectureSpec, tasks: Sequence[TaskSpec], seed: int
) -> tuple[nn.Sequential, dict[str, nn.Sequential]]:
    """Build the common initial weights of a plan: f and, by task name, every g.

    Common initial weights make the units of independently trained teachers correspond (METHODS
    1g; Compatible Representations, IIW). The same seed gives the same values on every machine.
    """
    category_module = build_category_module(spec)
    task_modules = {task.name: build_task_module(spec, task) for task in tasks}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in (category_module, *task_modules.values()):
            _draw(module)
    return category_module, task_modules


def initialise(module: nn.Sequential, seed: int) -> nn.Sequential:
    """Draw a module's initial values, as `initial_modules` does; returns it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _draw(module)
    return module


def _draw(module: nn.Sequential) -> None:
    """Draw He's initial values: each ReLU sees unit variance, so no layer starts dead or loud.

    Upsampling stays bilinear, as it is built.
    """
    weighted = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in weighted:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    logits: list[nn.Conv2d | nn.Linear] = [x for x in weighted[-1:] if isinstance(x, nn.Linear)]
    logits += [
        layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d) and name.rpartition(".")[2] in SCORES
    ]
    for layer in logits:
        # No ReLU follows a logit. A small start keeps the first losses near ln 2, so that a lab
        # with a few hundred images does not first unlearn confident noise.
        nn.init.normal_(layer.weight, std=0.01)


def _image_shape(spec: ArchitectureSpec) -> Shape:
    _parts(spec)
    return _image_size(spec)


def _image_size(spec: ArchitectureSpec) -> Shape:
    """Return the shape of images by the settings alone: a peer's net is not built for it."""
    architecture = _configured(spec)
    return architecture.in_channels, architecture.input_size, architecture.input_size


def _map_shape(spec: ArchitectureSpec) -> Shape:
    with torch.device("meta"):  # shapes only: no memory, no arithmetic
        category_module = sequence(_parts(spec)[0]).eval()
        features = category_module(torch.empty(1, *_image_shape(spec)))
    _, channels, height, width = features.shape
    return int(channels), int(height), int(width)


def _require_extractor(above: ArchitectureSpec, extractor: ArchitectureSpec) -> None:
    what = f"extractor '{extractor.name}', split '{extractor.split}'"
    if extractor.extractor is not None:
        raise SchemaError(f"{what}: has an extractor of its own; name that one alone")
    if extractor.preprocessing != Preprocessing():
        raise SchemaError(
            f"{what}: has preprocessing of its own; leave it out, images are read as the plan says"
        )
    given, wanted = _image_size(extractor), _image_size(above)
    if given != wanted:
        raise SchemaError(
            f"{what}: takes images of {given}, architecture '{above.name}' takes {wanted} "
            "(channels, height, width); set its input_size and in_channels to these"
        )
    own, map_ = _map_shape(extractor), _map_shape(above)
    if own[1:] != map_[1:]:
        raise SchemaError(
            f"{what}: its features are maps of {own[1]}×{own[2]}, at split '{above.split}' of "
            f"architecture '{above.name}' they are {map_[1]}×{map_[2]}; choose another split of it"
        )


def _parts(
    spec: ArchitectureSpec, outputs: int = _OUTPUTS
) -> tuple[Sequence[Layer], Sequence[Layer]]:
    architecture = _configured(spec)
    layers = architecture.layers(outputs)
    names = [name for name, _ in layers]
    known = [name for name in architecture.splits() if name in names]
    if spec.split not in known:
        raise SchemaError(
            f"architecture '{spec.name}' has no split point '{spec.split}' with these settings; "
            f"known split points: {', '.join(known)}"
        )
    end = names.index(spec.split) + 1
    return layers[:end], layers[end:]


def _configured(spec: ArchitectureSpec) -> Architecture:
    library, _, model = spec.name.rpartition(":")
    architecture = LibraryNet if library else ARCHITECTURES.get(spec.name)
    if architecture is None:
        raise SchemaError(
            f"unknown architecture '{spec.name}'; known architectures: {', '.join(ARCHITECTURES)}, "
            "and nets of libraries, 'torchvision:NAME' and 'timm:NAME'"
        )
    try:
        if architecture is LibraryNet:
            return LibraryNet.named(library, model, spec.settings)
        return architecture.model_validate(spec.settings)
    except ValidationError as error:
        raise SchemaError(
            f"settings of architecture '{spec.name}': {first_problem(error)}; "
            f"known settings: {', '.join(architecture.model_fields)}"
        ) from error

"""Trained nets on the lab's disk: safetensors files, never unpickled; nothing is fetched.

Recipe `l2t` learns from whole nets, recipe `nettailor` tailors a backbone, and `rootstock site
sources` compares category modules. The wire does not list what the transplant net holds: `rootstock
net export --out x.safetensors` at the coordinator writes a file and its card, and so does
`rootstock site adapt`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rootstock.common.errors import ConfigurationError, RootstockError, SchemaError, TransplantError
from rootstock.common.files import file_digest
from rootstock.common.l2t.taps import Source
from rootstock.common.nets.architectures import (
    build_category_module,
    build_head,
    feature_shape,
    input_shape,
    last_layer,
    own_name,
)
from rootstock.common.nets.composed import load_composed
from rootstock.common.nets.spec import ArchitectureSpec, Shape, require_fit
from rootstock.common.nets.tailored.resnet import BACKBONES
from rootstock.common.nettailor.augmented import stages
from rootstock.common.weights import safetensors_io, schema
from rootstock.common.weights.card import ModuleCard, NetCard, read_card
from rootstock.site_agent.config import L2tSource, NettailorBackbone, PairNames
from rootstock.site_agent.data.images import by

_CANNOT = (RootstockError, safetensors.SafetensorError, OSError, RuntimeError, ValueError)
"""What files, torchvision and nets raise where weights are not what they should be."""
_PREFIX = "category_module."
"""Of f's tensors in an exported net; a file of f alone has none."""


@dataclass(frozen=True)
class SourceNet:
    """A category module of another category, domain or time."""

    name: str
    """How tables name it."""
    architecture: ArchitectureSpec
    """Of the net that it is the bottom of."""
    category_module: nn.Sequential
    """f, frozen and in evaluation mode."""


def from_file(path: Path, device: torch.device | str = "cpu") -> SourceNet:
    """Read the category module of an exported net or of an adapted one, checked by its card."""
    card = read_card(path, ModuleCard)
    if card.weights != "safetensors":
        raise SchemaError(
            f"{path}: is of format {card.weights}, which holds no category module to take out; "
            "export it as NAME.safetensors"
        )
    named = {
        name.removeprefix(_PREFIX): entry
        for name, entry in card.blob.tensors.items()
        if name.startswith(_PREFIX)
    }
    own = named or card.blob.tensors
    f = build_category_module(card.category_architecture)
    schema.require_fit(f, card.blob.model_copy(update={"tensors": own}), what=str(path))
    prefix = _PREFIX if named else ""
    # All of it is read, as the digest is of the whole file.
    weights = safetensors_io.read(path, card.blob)
    f.load_state_dict({name: weights[prefix + name] for name in own})
    return SourceNet(
        f"{card.category} ({path.stem})",
        card.category_architecture,
        f.to(device).eval().requires_grad_(False),
    )


def require_source_fits(source: SourceNet, own: ArchitectureSpec) -> None:
    """Raise SchemaError if a source takes other images, or gives other features than g takes."""
    remedy = f"leave it out; the lab's own net is {own.described()}"
    takes, images = input_shape(source.architecture), input_shape(own)
    if takes != images:
        raise SchemaError(
            f"source {source.name}: takes images of {by(takes)}, the lab's are {by(images)}; "
            f"{remedy}"
        )
    try:
        require_fit("no adapter", feature_shape(source.architecture), feature_shape(own), None)
    except SchemaError as error:
        raise SchemaError(
            f"source {source.name}: does not fit below the lab's g ({error}); {remedy}"
        ) from error


@dataclass(frozen=True)
class LoadedSource:
    """A whole net that recipe `l2t` learns from."""

    source: Source
    description: str
    """For the manifest: what net it is and the SHA-256 of its file; no path."""


def load_sources(
    sources: tuple[L2tSource, ...],
    pairs: str | tuple[PairNames, ...],
    image_shape: Shape,
    device: torch.device,
) -> dict[str, LoadedSource]:
    """Load the sources of recipe `l2t`, frozen; they see the lab's images, as the target does.

    A list of pairs names the layers to be read; otherwise the ends of stages are.
    """
    loaded = {}
    for each in sources:
        layers = None
        if not isinstance(pairs, str):
            layers = list(dict.fromkeys(layer for name, layer, _ in pairs if name == each.name))
        what = f"training.l2t: source '{each.name}' ({each.path})"
        try:
            net, kind = _NETS[each.kind](each)
        except _CANNOT as error:
            raise ConfigurationError(f"{what} cannot be loaded: {error}") from error
        try:
            source = Source(net, layers, image_shape)
        except _CANNOT as error:
            raise ConfigurationError(
                f"{what} cannot be read with images of {by(image_shape)}: {error}"
            ) from error
        source.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        loaded[each.name] = LoadedSource(source, f"{kind} {file_digest(each.path)}")
    return loaded


def _own_net(each: L2tSource) -> tuple[nn.Module, str]:
    """Build f and, if the file holds its layers, a head of as many outputs as it has."""
    spec = each.architecture
    assert spec is not None  # noqa: S101  # the configuration is checked
    shapes = {name: entry.shape for name, entry in safetensors_io.read_header(each.path).items()}
    layers = dict(build_category_module(spec).named_children())
    head = [name for name, _ in build_head(spec, 1).named_children()]
    # A head's layer that is named as one of another architecture's f says nothing of the file.
    if any(name.partition(".")[0] in set(head) - layers.keys() for name in shapes):
        if twice := sorted(layers.keys() & set(head)):
            raise SchemaError(
                f"extractor '{spec.below().name}' and the layers above it both have a layer "
                f"'{twice[0]}', which a file can hold once only; give the category module alone"
            )
        last = shapes.get(f"{head[-1]}.weight", (1,))
        layers |= build_head(spec, last[0]).named_children()
    net = nn.Sequential(OrderedDict(layers))
    net.load_state_dict(safetensors.torch.load_file(each.path))
    return net, spec.below().name


def _torchvision_net(each: L2tSource) -> tuple[nn.Module, str]:
    from torchvision import models  # takes a second, which few callers need

    assert each.model is not None  # noqa: S101  # the configuration is checked
    state = safetensors.torch.load_file(each.path)
    with torch.device("meta"):
        blank = models.get_model(each.model, weights=None)
    last, default = list(blank.named_parameters())[-1]
    classes = len(state.get(last, default))
    with torch.random.fork_rng(devices=[]):
        net: nn.Module = models.get_model(each.model, weights=None, num_classes=classes)
    net.load_state_dict(state)
    return net, f"torchvision {each.model}"


def _exported_net(each: L2tSource) -> tuple[nn.Module, str]:
    spec = read_card(each.path, NetCard).category_architecture
    return load_composed(each.path), f"export {spec.below().name}"


_NETS: dict[str, Callable[[L2tSource], tuple[nn.Module, str]]] = {
    "net": _own_net,
    "export": _exported_net,
    "torchvision": _torchvision_net,
}


@dataclass(frozen=True)
class Backbone:
    """The f whose blocks recipe `nettailor` keeps or replaces, frozen and in evaluation mode."""

    architecture: ArchitectureSpec
    """The plan's: the blocks stay as they are and are shared by all who tailor the same net."""
    extractor: nn.Sequential
    description: str
    """For the manifest: the kind of file and its SHA-256; no path."""


def load_backbone(
    config: NettailorBackbone, architecture: ArchitectureSpec, device: torch.device
) -> Backbone:
    """Load a net's f up to the plan's split; the plan's architecture must have residual blocks."""
    extractor = build_category_module(architecture)
    try:
        if architecture.name not in BACKBONES:
            raise TransplantError(f"known backbones: {', '.join(BACKBONES)}")
        stages(extractor)
    except TransplantError as error:
        raise ConfigurationError(
            f"recipe 'nettailor': the plan's architecture '{architecture.name}', split "
            f"'{architecture.split}', has no residual blocks to keep or replace ({error}); set "
            "recipe = 'supervised', or ask the coordinator's operator for a ResNet"
        ) from error
    try:
        _fill(extractor, _backbone_weights(config, architecture))
        digest = file_digest(config.path)
    except _CANNOT as error:
        raise ConfigurationError(
            f"training.nettailor.backbone: {config.kind} {config.path} cannot be loaded: {error}"
        ) from error
    return Backbone(
        architecture, extractor.to(device).eval().requires_grad_(False), f"{config.kind} {digest}"
    )


def _fill(extractor: nn.Sequential, weights: Mapping[str, Tensor]) -> None:
    own = extractor.state_dict()
    missing = [name for name in own if name not in weights]
    if missing:
        raise SchemaError(
            f"it has no tensor '{missing[0]}' ({len(missing)} of {len(own)} are missing); give "
            f"weights of the plan's architecture, up to layer '{last_layer(extractor)}' at least"
        )
    extractor.load_state_dict({name: weights[name] for name in own})


def _backbone_weights(config: NettailorBackbone, plan: ArchitectureSpec) -> Mapping[str, Tensor]:
    if config.kind == "export":
        net = from_file(config.path)
        if net.architecture.above().name != plan.name or net.architecture.extractor is not None:
            raise SchemaError(
                f"its category module is a '{net.architecture.below().name}', the plan's a "
                f"'{plan.name}': blocks that all labs share are the plan's; export a category "
                "that was not tailored itself"
            )
        return net.category_module.state_dict()
    if config.kind == "net":
        return safetensors.torch.load_file(config.path)
    if plan.name != "resnet18":
        raise SchemaError(
            f"the plan's architecture is '{plan.name}', and of torchvision's nets only "
            "resnet18 is one of ours; give an exported net"
        )
    weights = safetensors.torch.load_file(config.path)
    return {own_name(plan, name): value for name, value in weights.items()}

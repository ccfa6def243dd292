"""The trained net that recipe `nettailor` tailors: a safetensors file on the lab's disk.

Its blocks stay as they are and are shared by all who tailor the same net, so it has to be of the
plan's architecture. Nothing is fetched or unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rootstock.common.errors import ConfigurationError, RootstockError, SchemaError, TransplantError
from rootstock.common.files import file_digest
from rootstock.common.nets.architectures import build_category_module, last_layer
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.nets.tailored.resnet import BACKBONES
from rootstock.common.nettailor.augmented import stages
from rootstock.site_agent.config import NettailorBackbone
from rootstock.site_agent.recipes.source_nets import from_file

_CANNOT = (RootstockError, safetensors.SafetensorError, OSError, RuntimeError)
"""What files and nets raise where weights are not what they should be."""
_LAYER = re.compile(r"^layer(\d+)\.(\d+)\.")
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Backbone:
    """The net's f, frozen, whose blocks are kept or replaced.

    Attributes
    ----------
    architecture
        The plan's, f up to its split.
    extractor
        f, in evaluation mode.
    description
        For the manifest: the kind of file and its SHA-256; no path.
    """

    architecture: ArchitectureSpec
    extractor: nn.Sequential
    description: str


def load_backbone(
    config: NettailorBackbone, architecture: ArchitectureSpec, device: torch.device
) -> Backbone:
    """Load the net's f up to the plan's split.

    Parameters
    ----------
    config
        The file and what it is.
    architecture
        The plan's.
    device
        Where to train.

    Raises
    ------
    ConfigurationError
        If the plan's architecture has no residual blocks; if the file cannot be loaded, is of
        another architecture or lacks a layer; names it.
    """
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
    what = f"training.nettailor.backbone: {config.kind} {config.path}"
    try:
        weights = _WEIGHTS[config.kind](config, architecture)
        _fill(extractor, weights)
        digest = file_digest(config.path)
    except _CANNOT as error:
        raise ConfigurationError(f"{what} cannot be loaded: {error}") from error
    return Backbone(
        architecture,
        extractor.to(device).eval().requires_grad_(False),
        f"{config.kind} {digest}",
    )


def _fill(extractor: nn.Sequential, weights: Mapping[str, Tensor]) -> None:
    """Take f's tensors out of a whole net's."""
    own = extractor.state_dict()
    missing = [name for name in own if name not in weights]
    if missing:
        raise SchemaError(
            f"it has no tensor '{missing[0]}' ({len(missing)} of {len(own)} are missing); give "
            f"weights of the plan's architecture, up to layer '{last_layer(extractor)}' at least"
        )
    extractor.load_state_dict({name: weights[name] for name in own})


def _exported(config: NettailorBackbone, architecture: ArchitectureSpec) -> dict[str, Tensor]:
    net = from_file(config.path, _CPU)
    if net.architecture.above().name != architecture.name or net.architecture.extractor is not None:
        raise SchemaError(
            f"its category module is a '{net.architecture.below().name}', the plan's a "
            f"'{architecture.name}': blocks that all labs share are the plan's; export a category "
            "that was not tailored itself"
        )
    return net.category_module.state_dict()


def _layers(config: NettailorBackbone, _: ArchitectureSpec) -> dict[str, Tensor]:
    return safetensors.torch.load_file(config.path)


def _torchvision(config: NettailorBackbone, architecture: ArchitectureSpec) -> dict[str, Tensor]:
    if architecture.name != "resnet18":
        raise SchemaError(
            f"the plan's architecture is '{architecture.name}', and of torchvision's nets only "
            "resnet18 is one of ours; give an exported net"
        )
    weights = safetensors.torch.load_file(config.path)
    return {_renamed(name): value for name, value in weights.items()}


def _renamed(name: str) -> str:
    """Return our name of a tensor of torchvision's: block2_1.… for layer2.0.…."""
    return _LAYER.sub(lambda match: f"block{match[1]}_{int(match[2]) + 1}.", name)


_WEIGHTS: dict[str, Callable[[NettailorBackbone, ArchitectureSpec], Mapping[str, Tensor]]] = {
    "export": _exported,
    "net": _layers,
    "torchvision": _torchvision,
}

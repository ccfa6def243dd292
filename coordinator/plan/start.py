"""The plan's start: where published weights are, whose they are, and reading them.

`seed` draws. Else the coordinator reads a file once, when it makes the plan; what labs fetch is
safetensors of our own, like any initial weights.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.error import URLError
from zipfile import BadZipFile

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rootstock.common.config import expand
from rootstock.common.errors import ConfigurationError, ConflictError, SchemaError
from rootstock.common.nets.published import take_published
from rootstock.common.nets.spec import ArchitectureSpec, Preprocessing
from rootstock.common.protocol import PublishedStart
from rootstock.common.text import plain

SEED = "seed"
_FILES = (".safetensors", ".pth", ".pt")
_UNKNOWN = "not stated"
_LONGEST_NAME = 180
_MOST_LEFT_OUT = 4096
_NO_WEIGHTS = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    BadZipFile,
    ValueError,
    LookupError,
)
"""What torch raises where a file is none of weights, or holds more than tensors."""
_KEY = "plan.start"
_HALVES = ("GoogLeNet_Weights.", "Inception_V3_Weights.")
"""Trained on (value / 255 − 0.5) / 0.5: torchvision's nets turn ImageNet's units into these
themselves, which the layers alone do not."""


@dataclass(frozen=True)
class _Source:
    """A file of weights, and what is said of it."""

    path: Path
    licence: str


def start_from(
    start: str,
    licence: str | None,
    spec: ArchitectureSpec,
    category_module: nn.Sequential,
    task_modules: Mapping[str, nn.Sequential],
) -> PublishedStart | None:
    """Put the weights that `plan.start` names into f and every g; return what the plan says of it.

    None for "seed". ConfigurationError if it names none that can be had, SchemaError if they do
    not fit; both name the remedy.
    """
    if start == SEED:
        return None
    kind, _, name = start.partition(":")
    find = {"torchvision": _of_torchvision, "package": _of_package, "file": _of_file}.get(kind)
    if find is None or not name:
        raise ConfigurationError(
            f'{_KEY} = "{start}": give "seed", "file:PATH", "package:NAME" or '
            '"torchvision:WEIGHTS" (for example torchvision:ResNet18_Weights.IMAGENET1K_V1)'
        )
    source = find(name, spec)
    published, digest = _read(source.path)
    try:
        taken = take_published(spec, category_module, task_modules, published)
    except SchemaError as error:
        raise SchemaError(f'{_KEY} = "{start}": {error}') from error
    if len(taken.left_out) > _MOST_LEFT_OUT:
        raise SchemaError(
            f'{_KEY} = "{start}": holds {len(taken.left_out)} tensors that have no place in '
            f"{spec.described()}; give weights of this architecture alone"
        )
    return PublishedStart(
        source=_source_of(start),
        licence=plain(licence or source.licence)[:_LONGEST_NAME],
        digest=digest,
        left_out=tuple(plain(name)[:_LONGEST_NAME] for name in taken.left_out),
        drawn=taken.drawn,
    )


def require_same_start(start: str, seen: PublishedStart | None, path: Path) -> None:
    """Refuse another start than the one of a plan that labs have seen (ConflictError)."""
    had = SEED if seen is None else seen.source
    if _source_of(start) != had:
        raise ConflictError(
            f'{path}: labs have seen a plan that starts from "{had}", and {_KEY} is "{start}"; put '
            "it back, or begin a new net in another state folder"
        )


def _source_of(start: str) -> str:
    """Return what a plan says of a start: of a file its name, and not where it lies."""
    kind, colon, name = start.partition(":")
    return f"file:{plain(Path(name).name)[-_LONGEST_NAME:]}" if kind == "file" and colon else start


def _of_file(name: str, _: ArchitectureSpec) -> _Source:
    path = expand(name)
    if not path.is_file():
        raise ConfigurationError(
            f'{_KEY} = "file:{name}": {path.absolute()} is no file; give the path of a '
            f"{' or '.join(_FILES)} file"
        )
    return _Source(path, _UNKNOWN)


def _of_package(name: str, _: ArchitectureSpec) -> _Source:
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise ConfigurationError(
            f'{_KEY} = "package:{name}": the package {name} is not installed here; install it '
            f"(pip install {name}), or give its file as file:PATH"
        ) from error
    files = [
        Path(str(package.locate_file(each)))
        for each in package.files or ()
        if each.suffix in _FILES
    ]
    if len(files) != 1:
        raise ConfigurationError(
            f'{_KEY} = "package:{name}": holds {len(files)} files of weights '
            f"({', '.join(_FILES)}), not one; give the one that is meant as file:PATH"
        )
    return _Source(files[0], _licence(package))


def _licence(package: metadata.Distribution) -> str:
    """Return what a package says of its licence, in its metadata or the first line of its text."""
    facts = package.metadata.json
    said = [str(facts.get(key, "")) for key in ("license_expression", "license")]
    named = next((each for each in said if each not in ("", "UNKNOWN")), None)
    if named is None:
        texts = [each for each in package.files or () if each.name.upper().startswith("LICEN")]
        lines = texts[0].read_text().strip().splitlines() if texts else []
        named = lines[0] if lines else _UNKNOWN
    return " ".join(named.split())[:100]


def _of_torchvision(name: str, spec: ArchitectureSpec) -> _Source:
    from torchvision.models import get_weight  # takes a second, which few callers need

    try:
        weights = get_weight(name)
    except (ValueError, AttributeError, KeyError) as error:
        raise ConfigurationError(
            f'{_KEY} = "torchvision:{name}": torchvision has no such weights ({error}); give a '
            "name as ResNet18_Weights.IMAGENET1K_V1"
        ) from error
    _require_units(name, weights.transforms(), spec.preprocessing)
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            prefix = path.stem.rpartition("-")[2]  # torchvision's names end in digits of the hash
            torch.hub.download_url_to_file(weights.url, str(path), prefix, progress=False)
        except (URLError, OSError, RuntimeError) as error:
            raise ConfigurationError(
                f'{_KEY} = "torchvision:{name}": {weights.url} cannot be fetched ({error}); put '
                f"that file at {path}, or give it as file:PATH"
            ) from error
    return _Source(path, f"{_UNKNOWN} (torchvision {metadata.version('torchvision')})")


def _require_units(name: str, asked: object, given: Preprocessing) -> None:
    """Refuse a plan whose images are in other units than published weights were trained on."""
    found = [getattr(asked, key, None) for key in ("mean", "std")]
    if None in found:
        raise ConfigurationError(
            f"{_KEY}: {name} say nothing of the images that they were trained on; give weights of "
            "a classifier"
        )
    mean, std = (tuple(map(float, each)) for each in found if each is not None)
    if name.startswith(_HALVES):
        mean = std = (0.5, 0.5, 0.5)
    if (given.mean, given.std, given.colours) != (mean, std, "rgb"):
        raise ConfigurationError(
            f"{_KEY}: {name} were trained on images with mean {list(mean)} and std {list(std)}; "
            f"set plan.architecture.preprocessing = {{ mean = {list(mean)}, std = {list(std)} }}"
        )


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return a file's tensors and its SHA-256; nothing but tensors is unpickled."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path), digest
        except safetensors.SafetensorError as error:
            raise SchemaError(f"{path}: is no safetensors file ({error})") from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except _NO_WEIGHTS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SchemaError(
            f"{path}: holds more than tensors, or is no file of weights ({reason}); save the net's "
            "state dict as safetensors and give that"
        ) from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(t, Tensor) for t in found.values()):
        raise SchemaError(
            f"{path}: is no state dict, tensors by name; save the net's state dict and give that"
        )
    return {str(key): tensor for key, tensor in found.items()}, digest

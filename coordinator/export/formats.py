"""The formats that a composed net can be taken away in, and what their files are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rootstock.common.errors import ConfigurationError
from rootstock.common.weights.card import FormatName


@dataclass(frozen=True)
class Format:
    """A format: its files' suffix, and how Python loads them, with the file's name for `{file}`."""

    name: FormatName
    suffix: str
    how_to_load: str


FORMATS = (
    Format(
        "safetensors",
        ".safetensors",
        "from rootstock import load_composed\n"
        "net = load_composed({file!r})\n"
        "logits = net(images_NCHW)",
    ),
    Format(
        "torch",
        ".pt2",
        "import torch\nnet = torch.export.load({file!r}).module()\nlogits = net(images_NCHW)",
    ),
    Format(
        "onnx",
        ".onnx",
        "import onnxruntime\n"
        "session = onnxruntime.InferenceSession({file!r})\n"
        '(logits,) = session.run(None, {{"images": images_NCHW}})',
    ),
)


def format_of(wanted: str | None, out: Path) -> Format:
    """Return the wanted format, or the one that a file's suffix says."""
    known = ", ".join(f"{each.name} ({each.suffix})" for each in FORMATS)
    if wanted is None:
        for each in FORMATS:
            if each.suffix == out.suffix:
                return each
        raise ConfigurationError(
            f"--out {out}: the suffix '{out.suffix}' is no format's; use one of {known}"
        )
    for each in FORMATS:
        if each.name == wanted:
            if out.suffix != each.suffix:
                raise ConfigurationError(
                    f"--out {out}: a file of format {each.name} ends with {each.suffix}; write "
                    f"{out.with_suffix(each.suffix)}, or name the format of '{out.suffix}'"
                )
            return each
    raise ConfigurationError(f"--format {wanted}: there is no such format; use one of {known}")

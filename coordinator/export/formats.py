"""The formats that a composed net can be exported in, and their files' suffixes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rootstock.common.errors import ConfigurationError
from rootstock.common.weights.card import FormatName


@dataclass(frozen=True)
class Format:
    """A format; `how_to_load` is Python, with the file's name for `{file}`."""

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
    """Return the wanted format, or the one of a file's suffix."""
    known = ", ".join(f"{each.name} ({each.suffix})" for each in FORMATS)
    names = {each.suffix if wanted is None else str(each.name): each for each in FORMATS}
    chosen = names.get(out.suffix if wanted is None else wanted)
    if chosen is None:
        problem = f"--format {wanted}: there is no such format"
        if wanted is None:
            problem = f"--out {out}: the suffix '{out.suffix}' is no format's"
        raise ConfigurationError(f"{problem}; use one of {known}")
    if chosen.suffix != out.suffix:
        raise ConfigurationError(
            f"--out {out}: a file of format {chosen.name} ends with {chosen.suffix}; write "
            f"{out.with_suffix(chosen.suffix)}, or name the format of '{out.suffix}'"
        )
    return chosen

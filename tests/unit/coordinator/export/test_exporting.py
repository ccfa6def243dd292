"""torch.export and ONNX files, held against the composed net by the tools that will load them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from rootstock.common.errors import (
    ConfigurationError,
    IntegrityError,
    MissingExtraError,
    NotFoundError,
    SchemaError,
)
from rootstock.common.image_files.decoding import UnreadableError
from rootstock.common.nets.composed import load_composed
from rootstock.common.weights.card import NetCard, card_path
from rootstock.coordinator.export import onnx_export
from rootstock.coordinator.export.card_text import text_path
from rootstock.coordinator.export.exporting import TOLERANCE, compared, export_composed
from rootstock.coordinator.export.formats import FORMATS, Format, format_of
from rootstock.coordinator.export.tracing import Convert, converted, torch_program
from rootstock.coordinator.net.compose import compose
from tests.support.grown_net import Command, GrownNet, animals

pytestmark = pytest.mark.slow


@pytest.fixture
def grown(tmp_path: Path) -> GrownNet:
    return animals(tmp_path)


@pytest.fixture
def digits(tmp_path: Path) -> list[Path]:
    """Real images: three handwritten digits."""
    paths = []
    for place, image in enumerate(load_digits().images[:3]):
        paths.append(tmp_path / f"digit-{place}.png")
        Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8)).save(paths[-1])
    return paths


def test_an_onnx_file_answers_as_the_composed_net(
    grown: GrownNet, digits: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "dog.onnx"
    argv = [
        "net", "export", "-c", str(grown.config), "--category", "dog", "--task", "classification",
        "--format", "onnx", "--out", str(out), *(f"--image={path}" for path in digits),
    ]  # fmt: skip
    command = Command(capfd)
    printed = json.loads(command.text(*argv))
    assert "arn" not in capfd.readouterr().err  # nor any warning
    card = NetCard.parse(card_path(out).read_bytes(), what="card")
    assert card.model_dump(mode="json", exclude={"blob": {"tensors"}}) == printed
    parity = card.parity
    assert parity is not None
    assert parity.random_difference <= 1e-4
    assert parity.real_images == 3
    assert parity.real_difference is not None
    assert parity.real_difference <= 1e-4
    assert card.source is not None
    assert (card.source.net, card.source.version) == ("animals", 3)
    # The calibration is in the file: the composed net is calibrated, and any batch will do.
    net = compose(grown.tree, grown.store, "dog", "classification")
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    for count in (1, 7):
        images_NCHW = torch.randn(count, 3, 32, 32)
        (logits,) = session.run(None, {"images": images_NCHW.numpy()})
        assert np.abs(logits - net(images_NCHW).numpy()).max() <= TOLERANCE
    text = text_path(out).read_text(encoding="utf-8")
    for expected in (
        "# dog: classification",
        "onnxruntime.InferenceSession('dog.onnx')",
        "1.2 %",
        "3 real ones",
        card.blob.digest,
        "output = 0.5 · y + 1",
        "net *animals*, version 3",
    ):
        assert expected in text


def test_a_torch_program_answers_as_the_composed_net(
    grown: GrownNet, digits: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "cow.pt2"
    card = export_composed(grown.tree, grown.store, "cow", "segmentation", out, images=digits)
    assert card.weights == "torch"
    assert card.parity is not None
    assert card.parity.real_difference == 0.0
    program = torch.export.load(out).module()
    net = compose(grown.tree, grown.store, "cow", "segmentation")
    for count in (1, 7):
        images_NCHW = torch.randn(count, 3, 32, 32)
        assert torch.allclose(program(images_NCHW), net(images_NCHW), atol=TOLERANCE)
    assert "32 × 32 pixels" in text_path(out).read_text(encoding="utf-8")
    with pytest.raises(SchemaError, match=r"is of format torch, not safetensors; load it so"):
        load_composed(out)


def test_safetensors_have_a_card_for_people_too(grown: GrownNet, tmp_path: Path) -> None:
    out = tmp_path / "cat.safetensors"
    card = export_composed(grown.tree, grown.store, "cat", "classification", out)
    assert card.parity is None
    assert text_path(out).name == "cat.safetensors.card.md"
    text = text_path(out).read_text(encoding="utf-8")
    assert "bit for bit" in text
    assert "none: the two modules fit as they are" in text
    assert "(value / 255 − 0.5) / 0.25" in text


class Branching(nn.Module):
    """What it does depends on the numbers: no traced program can say that."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW if float(x_NCHW.sum()) > 0 else -x_NCHW


class Bessel(nn.Module):
    """torch can trace it, ONNX has no such operator."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y_NCHW: Tensor = torch.special.bessel_j0(x_NCHW)
        return y_NCHW


@pytest.mark.parametrize(
    ("name", "layer", "convert"),
    [("torch", Branching, torch_program), ("onnx", Bessel, onnx_export.convert)],
)
def test_a_layer_that_a_format_cannot_hold_is_named(
    name: str, layer: type[nn.Module], convert: Convert, capfd: pytest.CaptureFixture[str]
) -> None:
    net = nn.Sequential()
    net.add_module("conv1_1", nn.Conv2d(3, 2, 1))
    net.add_module("odd", layer())
    example_NCHW = torch.zeros(2, 3, 8, 8)
    named = rf"format {name} cannot hold layer 'odd' \({layer.__name__}\)"
    with pytest.raises(ConfigurationError, match=named):
        converted(net.eval(), example_NCHW, convert, format_name=name)
    assert capfd.readouterr() == ("", "")


def test_a_dtype_that_safetensors_cannot_hold_is_named(
    grown: GrownNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = compose(grown.tree, grown.store, "cat", "classification")
    net.task_module.register_buffer("phase", torch.zeros(2, dtype=torch.complex64))
    monkeypatch.setattr("rootstock.coordinator.export.exporting.compose", lambda *_: net)
    with pytest.raises(SchemaError, match=r"tensor 'task_module.phase' is torch.complex64"):
        export_composed(
            grown.tree, grown.store, "cat", "classification", tmp_path / "cat.safetensors"
        )


def test_a_net_too_large_for_one_message_is_refused(
    grown: GrownNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "MAX_BYTES", 1000)
    with pytest.raises(ConfigurationError, match=r"format onnx cannot hold .* bytes of weights"):
        export_composed(grown.tree, grown.store, "cat", "classification", tmp_path / "cat.onnx")


def test_a_net_that_answers_otherwise_is_not_written() -> None:
    net = nn.Flatten()
    shape = (1, 2, 2)
    real_NCHW = torch.full((2, *shape), 100.0)
    assert compared(net, lambda x: net(x) * (1 + 5e-5), shape, real_NCHW).real_images == 2
    with pytest.raises(IntegrityError, match=r"for random images differ .* tolerance is 0\.0001"):
        compared(net, lambda x: net(x) + 2e-4, shape, None)
    with pytest.raises(IntegrityError, match="differ from the composed one's by nan"):
        compared(net, lambda x: net(x) * float("nan"), shape, None)
    with pytest.raises(IntegrityError, match=r"gives \[5, 1, 2, 2\] for random images"):
        compared(net, lambda x: x, shape, None)


@pytest.mark.parametrize(
    ("name", "file", "problem"),
    [
        ("onnx", "net.safetensors", r"a file of format onnx ends with \.onnx; write net\.onnx"),
        ("torch", "net.pt", r"ends with \.pt2; write net\.pt2"),
        (None, "net.h5", r"the suffix '\.h5' is no format's; use one of safetensors"),
        (None, "net", r"the suffix '' is no format's"),
        ("tflite", "net.tflite", "--format tflite: there is no such format"),
    ],
)
def test_a_suffix_that_does_not_fit(name: str | None, file: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        format_of(name, Path(file))


@pytest.mark.parametrize("each", FORMATS, ids=lambda each: each.name)
def test_a_suffix_says_the_format(each: Format) -> None:
    suffix, name = each.suffix, each.name
    assert format_of(None, Path(f"net{suffix}")) == format_of(name, Path(f"net{suffix}")) == each


def test_onnx_without_its_extra(
    grown: GrownNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An import of a package that sys.modules maps to None fails as if it were not installed.
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "rootstock.coordinator.export.onnx_export")
    monkeypatch.delattr("rootstock.coordinator.export.onnx_export")
    with pytest.raises(MissingExtraError, match=r"pip install 'rootstock-federation\[export\]'"):
        export_composed(grown.tree, grown.store, "cat", "classification", tmp_path / "cat.onnx")


def test_nothing_is_written_where_something_is_wrong(grown: GrownNet, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(NotFoundError, match="not joined"):
        export_composed(grown.tree, grown.store, "dog", "segmentation", folder / "dog.pt2")
    with pytest.raises(UnreadableError, match=r"coordinator\.toml"):
        export_composed(
            grown.tree, grown.store, "dog", "classification", folder / "dog.pt2",
            images=[grown.config],
        )  # fmt: skip
    assert not folder.exists()

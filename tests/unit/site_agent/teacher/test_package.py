"""What leaves the lab: exactly what the settings allow, and the coordinator's gate takes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rootstock.common.errors import ConfigurationError, DataError
from rootstock.common.images import normalise
from rootstock.common.nets import feature_moments
from rootstock.common.protocol import Limits
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.admission import admit
from rootstock.site_agent.config import StatisticsConfig
from rootstock.site_agent.recipes.interface import Teacher
from rootstock.site_agent.scoring import error_percent
from rootstock.site_agent.teacher.package import shared_samples
from rootstock.site_agent.teacher.statistics import statistics
from tests.support import digits_lab

MOMENTS = {feature_moments.MEAN, *feature_moments.COVARIANCES}


def test_the_gate_takes_what_is_built(tmp_path: Path) -> None:
    manifest = digits_lab.untrained(tmp_path, share_samples=5)
    admit(manifest, digits_lab.plan(tmp_path / "plan"), lambda digest: tmp_path / digest)
    assert manifest.metrics["samples/validation"] == len(digits_lab.data(0).validation)


def test_by_default_no_image_leaves(tmp_path: Path) -> None:
    manifest = digits_lab.untrained(tmp_path)
    assert manifest.shared_samples is None
    assert len(manifest.blobs()) == 3  # f, g and statistics


@pytest.mark.parametrize(("count", "category"), [(1, 1), (10, 5), (11, 6), (200, 100)])
def test_exactly_so_many_samples_half_of_them_the_category(
    tmp_path: Path, count: int, category: int
) -> None:
    training = digits_lab.data(0).training
    config = digits_lab.config(tmp_path, share_samples=count)
    shared = shared_samples(training, config, digits_lab.plan(tmp_path / "plan"))
    assert shared is not None
    assert shared["images"].shape == (count, 3, 32, 32)
    assert shared["labels"].sum() == category
    ours = {normalise(image_CHW[None]).numpy().tobytes() for image_CHW in training.images_NCHW}
    assert all(image_CHW[None].numpy().tobytes() in ours for image_CHW in shared["images"])


def test_all_training_images_can_be_shared_and_no_more(tmp_path: Path) -> None:
    training, plan = digits_lab.data(0).training, digits_lab.plan(tmp_path / "plan")
    everything = shared_samples(
        training, digits_lab.config(tmp_path, share_samples=len(training)), plan
    )
    assert everything is not None
    assert everything["labels"].sum() == training.counts()[0]
    with pytest.raises(DataError, match=rf"share_samples = {len(training) + 1}.*lower it"):
        shared_samples(training, digits_lab.config(tmp_path, share_samples=len(training) + 1), plan)


def test_the_plan_caps_what_is_shared(tmp_path: Path) -> None:
    plan = digits_lab.plan(tmp_path / "plan").model_copy(
        update={"limits": Limits(max_shared_samples=3)}
    )
    with pytest.raises(ConfigurationError, match="the plan accepts at most 3"):
        shared_samples(
            digits_lab.data(0).training, digits_lab.config(tmp_path, share_samples=4), plan
        )


def test_statistics_are_those_of_each_conv_and_of_the_features(tmp_path: Path) -> None:
    net = Teacher(*digits_lab.eval_all(digits_lab.start()))
    images = digits_lab.data(0).training
    named = statistics(net, images, StatisticsConfig())
    x_NCHW = normalise(images.images_NCHW)
    f, g = net.category_module, net.task_modules["classification"]
    with torch.no_grad():
        first_NCHW = f[:1](x_NCHW)
        features_NCHW = f(x_NCHW)
        upper_NCHW = g[:1](features_NCHW)
    norm = features_NCHW.flatten(1).norm(dim=1).mean()
    assert torch.allclose(named["feature_norm"], norm[None], rtol=1e-5)
    outputs = {"conv1_1": first_NCHW, "pool1": features_NCHW, "conv2_1": upper_NCHW}
    for name, output_NCHW in outputs.items():
        variance_C, mean_C = torch.var_mean(output_NCHW, (0, 2, 3), correction=0)
        assert torch.allclose(named[f"mean/{name}"], mean_C, atol=1e-5)
        assert torch.allclose(named[f"variance/{name}"], variance_C, rtol=1e-4)
    assert torch.allclose(named["feature_mean"], features_NCHW.mean(0), atol=1e-5)
    channels_C = named["feature_channels"].diagonal()
    assert torch.allclose(
        channels_C, features_NCHW.var(0, correction=0).mean((1, 2)), rtol=1e-4, atol=1e-6
    )
    assert {name.split("/")[-1] for name in named} == {
        "feature_norm", "pool1", *MOMENTS, *(f"conv{b}_{n}" for b in (1, 2, 3) for n in (1, 2)),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("off", "gone"),
    [
        ("feature_norm", "feature_norm"),
        ("channel_means", "mean"),
        ("channel_variances", "variance"),
        ("feature_moments", "feature_mean"),
    ],
)
def test_each_statistic_can_be_switched_off(tmp_path: Path, off: str, gone: str) -> None:
    manifest = digits_lab.untrained(tmp_path, statistics={off: False})
    assert manifest.statistics is not None
    assert manifest.measured_task == "classification"
    kinds = {name.split("/")[0] for name in manifest.statistics.tensors}
    # Moments say what each of the others does, so they go with any of them.
    assert kinds == {"feature_norm", "mean", "variance"} - {gone}


@pytest.mark.parametrize(
    ("wanted", "images", "travel"), [(None, 50, True), (None, 49, False), (True, 3, True)]
)
def test_moments_of_few_images_stay_unless_they_are_asked_for(
    wanted: bool | None, images: int, *, travel: bool
) -> None:
    net = Teacher(*digits_lab.eval_all(digits_lab.start()))
    few = digits_lab.data(0).training.subset(list(range(images)))
    named = statistics(net, few, StatisticsConfig(feature_moments=wanted))
    assert (named.keys() >= MOMENTS) == travel


def test_all_statistics_off_means_no_blob(tmp_path: Path) -> None:
    off = dict.fromkeys(StatisticsConfig.model_fields, False)
    manifest = digits_lab.untrained(tmp_path, statistics=off)
    assert manifest.statistics is None
    assert manifest.measured_task is None
    assert len(manifest.blobs()) == 2


def test_the_manifest_names_what_is_in_the_files(tmp_path: Path) -> None:
    manifest = digits_lab.untrained(tmp_path)
    for blob in manifest.blobs():
        assert safetensors_io.read(tmp_path / blob.digest, blob).keys() == blob.tensors.keys()


def test_error_counts_the_wrong_side_of_zero() -> None:
    logits_N = torch.tensor([1.0, -1.0, 2.0, -2.0, float("nan")])
    labels_N = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])
    assert error_percent(logits_N, labels_N) == pytest.approx(60.0)

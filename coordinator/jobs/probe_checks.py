"""The probe's checks: what a teacher net answers to fixed synthetic images, before it is admitted.

The images are nobody's and the same everywhere: noise and dead leaves over the whole range of the
nets' input, and its two ends. A refusal starts with the check's name and says the value and the
rule. The bounds are generous: nets trained on digits and on photographs stay far inside
(`rootstock bench poison`).

Shapes: N images, C channels, H/W height and width.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rootstock.common.distillation.auto.images import dead_leaves
from rootstock.common.errors import LimitError, RefusedError, SchemaError
from rootstock.common.nets import feature_moments
from rootstock.common.nets.architectures import measured_layers
from rootstock.common.nets.spec import Shape
from rootstock.common.nets.training import watched

LEAVES, NOISE = 32, 8
"""Images of each kind."""
PROBE_IMAGES = LEAVES + NOISE + 2
CHUNK = 4
"""Images that a net runs on at a time: a large one's features of all images fill a machine."""
MAX_RMS = 1e6
"""Cap on what any layer puts out. Nets of ReLUs scale with their input, which is bounded: what is
far from float32's end here overflows nowhere."""
MAX_ANSWER = 1e4
"""Cap on |y|: a logit of 100 is certain already."""
LEAST_SPREAD = 1e-5
"""Answers that differ by less than this share of their size do not depend on the image: float32
resolves 1e-7."""
FEATURE_RANGE = 30.0
"""How many times larger or smaller f(I) may be than what the net's task modules learned from."""
STATISTICS_RANGE = 10.0
"""How far a statistic of training images may be from the same of the probe's, as a factor."""


def probe_images(shape: Shape) -> Tensor:
    """Return the probe's images (N, C, H, W), the dead leaves first."""
    generator = torch.Generator().manual_seed(0)
    leaves_NCHW = dead_leaves(LEAVES, shape, generator)
    noise_NCHW = 4 * torch.rand((NOISE, *shape), generator=generator) - 2
    ends_NCHW = torch.stack([torch.full(shape, -2.0), torch.full(shape, 2.0)])
    return torch.cat([leaves_NCHW, noise_NCHW, ends_NCHW])


@dataclass(frozen=True)
class Output:
    """What one layer puts out for the probe's images."""

    rms: float
    """Root of the mean square over everything; not finite if any number is not."""
    spread: float
    """Largest difference between two images in any one number."""
    leaves_rms: float
    """As `rms`, of the dead leaves alone."""
    leaves_norm: float
    """E‖output‖_F over the dead leaves."""


class Running:
    """Measures one layer's output chunk by chunk: of one image's numbers two copies are kept."""

    def __init__(self) -> None:
        self._norms: list[float] = []
        self._numbers = 0
        self._least_X = self._most_X = torch.empty(0)

    def add(self, output_NX: Tensor) -> None:
        """Measure the next images' output, images first."""
        values = output_NX.detach().flatten(1)
        self._norms += _norms(values)
        least_X, most_X = values.amin(0), values.amax(0)
        if self._numbers:
            least_X, most_X = self._least_X.minimum(least_X), self._most_X.maximum(most_X)
        self._least_X, self._most_X, self._numbers = least_X, most_X, values.shape[1]

    def output(self) -> Output:
        """Return what was measured; the dead leaves came first."""
        leaves = self._norms[:LEAVES]
        spread = self._most_X.double() - self._least_X.double()
        return Output(
            rms=self._rms(self._norms),
            spread=float(spread.max()),
            leaves_rms=self._rms(leaves),
            leaves_norm=sum(leaves) / len(leaves),
        )

    def _rms(self, norms: list[float]) -> float:
        return math.sqrt(sum(norm * norm for norm in norms) / (len(norms) * self._numbers))


def _norms(values_NX: Tensor) -> list[float]:
    """Return each image's ‖output‖; what float32 has room for must not overflow in its square."""
    size = float(values_NX.abs().max())
    if not math.isfinite(size):
        return [math.inf] * len(values_NX)
    scaled_NX = values_NX / (size or 1.0)
    return [size * norm for norm in torch.linalg.vector_norm(scaled_NX, dim=1).tolist()]


@dataclass(frozen=True)
class Probed:
    """A teacher net's outputs on the probe's images, and what they are held against."""

    layers: Mapping[str, Output]
    """Every layer of f and of each g in a row, by how errors name it."""
    features: Output
    """f(I)."""
    answers: Mapping[str, Output]
    """y, by task."""
    measured: Mapping[str, Output]
    """The layers that shipped statistics are of, by their names."""
    reference: Output
    """f(I) of what the net's task modules learned from, or of the plan's start."""
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    """As shipped."""


@torch.inference_mode()
def probed(
    category_module: nn.Sequential,
    task_modules: Mapping[str, nn.Sequential],
    reference: nn.Sequential,
    images_NCHW: Tensor,
    *,
    statistics: Mapping[str, Tensor],
    measured_task: str,
) -> Probed:
    """Run a teacher net, frozen and in evaluation mode, on the probe's images, a few at a time."""
    layers: defaultdict[str, Running] = defaultdict(Running)
    measured: defaultdict[str, Running] = defaultdict(Running)
    answers: defaultdict[str, Running] = defaultdict(Running)
    features, wanted = Running(), Running()
    tasks = sorted(task_modules, key=lambda task: task != measured_task)
    for chunk_NCHW in torch.split(images_NCHW, CHUNK):
        seen: set[str] = set()

        def measure(name: str, output: Tensor, seen: set[str] = seen) -> None:
            if name not in seen:
                seen.add(name)
                measured[name].add(output)

        with watched(measured_layers(category_module, task_modules[measured_task]), measure):
            x_NCHW = _passed(category_module, chunk_NCHW, "category module", layers)
            features.add(x_NCHW)
            for task in tasks:
                what = f"task module '{task}'"
                answers[task].add(_passed(task_modules[task], x_NCHW, what, layers))
        del x_NCHW
        wanted.add(reference(chunk_NCHW))
    return Probed(
        _outputs(layers),
        features.output(),
        _outputs(answers),
        _outputs(measured),
        wanted.output(),
        statistics,
    )


def _outputs(running: Mapping[str, Running]) -> dict[str, Output]:
    return {name: each.output() for name, each in running.items()}


def check(probe: Probed) -> None:
    """Raise a RefusedError that starts with the name of the first check that fails."""
    for name, rule in PROBE_CHECKS:
        try:
            rule(probe)
        except RefusedError as error:
            raise type(error)(f"{name}: {error}") from error


def _passed(
    net: nn.Sequential, x_NX: Tensor, what: str, layers: defaultdict[str, Running]
) -> Tensor:
    for name, layer in net.named_children():
        x_NX = layer(x_NX)
        layers[f"{what}: layer '{name}'"].add(x_NX)
    return x_NX


# -- the checks ----------------------------------------------------------------------------------


def _is_finite(probe: Probed) -> None:
    for what, output in probe.layers.items():
        if not math.isfinite(output.rms):
            raise SchemaError(
                f"{what} puts out NaN or Inf for an image; every number must be finite: train with "
                "a lower learning rate"
            )


def _is_alive(probe: Probed) -> None:
    for what, output in probe.layers.items():
        if output.rms == 0.0:
            raise SchemaError(
                f"{what} puts out zeros for every image, so nothing after it sees the image; train "
                "anew with a lower learning rate"
            )


def _depends_on_the_image(probe: Probed) -> None:
    whole = {"category module": probe.features}
    whole |= {f"task module '{task}'": output for task, output in probe.answers.items()}
    for what, output in whole.items():
        if output.spread <= LEAST_SPREAD * output.rms:
            raise SchemaError(
                f"the {what} answers the same to all images: {output.rms:.3g}, give or take "
                f"{output.spread:.1g}; a net that tells images apart is wanted"
            )


def _range_is_sane(probe: Probed) -> None:
    for what, output in probe.layers.items():
        if output.rms > MAX_RMS:
            raise LimitError(
                f"{what} puts out numbers of size {output.rms:.3g}, the limit is {MAX_RMS:g}; use "
                "weight decay or a lower learning rate"
            )
    for task, output in probe.answers.items():
        if output.rms > MAX_ANSWER:
            raise LimitError(
                f"task module '{task}' answers with numbers of size {output.rms:.3g}, the limit is "
                f"{MAX_ANSWER:g}; use weight decay or a lower learning rate"
            )
    own, other = probe.features.rms, probe.reference.rms
    if not other / FEATURE_RANGE <= own <= other * FEATURE_RANGE:
        raise LimitError(
            f"the category module's features have size {own:.3g}, those that the net's task "
            f"modules take have {other:.3g}; at most {FEATURE_RANGE:g} times more or less is "
            "joined: train from the plan's start"
        )


def _statistics_agree(probe: Probed) -> None:
    stated = probe.statistics
    if "feature_norm" in stated:
        _agree("'feature_norm'", float(stated["feature_norm"]), probe.features.leaves_norm)
    mean, channels = stated.get(feature_moments.MEAN), stated.get(feature_moments.COVARIANCES[0])
    if mean is not None and channels is not None:
        square = mean.double().square().mean() + channels.double().diagonal().mean()
        what = f"'{feature_moments.MEAN}' and '{feature_moments.COVARIANCES[0]}'"
        _agree(what, float(square.sqrt()), probe.features.leaves_rms)
    for name, output in probe.measured.items():
        mean, variance = stated.get(f"mean/{name}"), stated.get(f"variance/{name}")
        if mean is not None and variance is not None:
            size = float((mean.double().square() + variance.double()).mean().sqrt())
            _agree(f"'mean/{name}' and 'variance/{name}'", size, output.leaves_rms)


def _agree(what: str, stated: float, found: float) -> None:
    if not found / STATISTICS_RANGE <= stated <= found * STATISTICS_RANGE:
        raise LimitError(
            f"{what} say {stated:.3g}, synthetic images give {found:.3g}; at most "
            f"{STATISTICS_RANGE:g} times more or less is believed: measure the net that is shipped"
        )


PROBE_CHECKS: tuple[tuple[str, Callable[[Probed], None]], ...] = (
    ("overflow", _is_finite),
    ("dead", _is_alive),
    ("constant", _depends_on_the_image),
    ("range", _range_is_sane),
    ("statistics", _statistics_agree),
)

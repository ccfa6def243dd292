"""Checks of a join on the probe's images before its commit, and its error on given samples. Pure.

Shapes: N images, (N, …) answers of an image or of its pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rootstock.common.errors import LimitError, SchemaError
from rootstock.common.nets.calibration import Calibration

REACH = 8.0
"""How many standard deviations of the join's answers on synthetic images a calibration may put the
border between no and yes away from their mean. Honest nets of the digits stay within 2.0
(`rootstock bench poison`), so that only coarse lies are named here."""
LEAST_SIZE, MOST_SIZE = 1e-3, 1e4
"""What a calibration may make of one such deviation, in logits."""


def check_join(y_NX: Tensor, calibration: Calibration) -> None:
    """Refuse a join by its answers on the probe's images before they are calibrated.

    SchemaError if one is no number; LimitError if the calibration overrules what the net answers.
    """
    if not bool(torch.isfinite(y_NX).all()):
        raise SchemaError(
            "overflow: the join answers NaN or Inf to an image; every number must be finite: have "
            "the lab ship again"
        )
    if calibration.identity:
        return
    mean, deviation = float(y_NX.double().mean()), float(y_NX.double().std(correction=0))
    stated = f"calibration: y ↦ {calibration.scale:g} · y + {calibration.bias:g}"
    border = -calibration.bias / calibration.scale
    if not abs(border - mean) <= REACH * deviation:
        raise LimitError(
            f"{stated} says yes above y = {border:.3g}; on synthetic images the join answers "
            f"{mean:.3g} ± {deviation:.3g}, and the border may be at most {REACH:g} deviations "
            "from their mean: every picture would be on one side of it"
        )
    size = calibration.scale * deviation
    if not LEAST_SIZE <= size <= MOST_SIZE:
        raise LimitError(
            f"{stated} makes answers of size {size:.3g} on synthetic images; allowed are "
            f"{LEAST_SIZE:g} to {MOST_SIZE:g}"
        )


def error_percent(y_N: Tensor, labels_N: Tensor) -> float:
    """Return the mean of both sides' shares of images on the wrong side of 0, in percent.

    Both sides have images. However few show the category, a join that says no to everything has an
    error of 50%, as on the balanced images that labs report about.
    """
    assert y_N.shape == labels_N.shape  # noqa: S101  # others would broadcast
    yes_N, shows_N = y_N > 0, labels_N > 0.5
    missed, claimed = ~yes_N[shows_N], yes_N[~shows_N]
    return 50.0 * float(missed.double().mean() + claimed.double().mean())

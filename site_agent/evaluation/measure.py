"""Measures candidates on the lab's private validation data: numbers leave, images do not.

N images, C channels, H/W height and width.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rootstock.common.distillation.calibration import calibrate_by_labels
from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import build_category_module, build_task_module
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.spec import TaskKind, TaskSpec
from rootstock.common.nets.training import device_of
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import BlobEntry
from rootstock.site_agent import scoring
from rootstock.site_agent.consent.question import Question
from rootstock.site_agent.consent.rounding import rounded
from rootstock.site_agent.data.images import ImageSet, LabData
from rootstock.site_agent.spool.documents import CalibratedError, CandidateError
from rootstock.site_agent.wire.messages import EvaluationRequest

CONFIDENCE_Z = 1.645
"""Standard normal deviate of a one-sided confidence of 95%."""


@dataclass(frozen=True)
class Joins:
    """One f and one g_S, and the candidates between them, all frozen and in evaluation mode."""

    category_module: nn.Sequential
    """f of the lab's own teacher."""
    task_module: nn.Sequential
    """g_S."""
    adapters: dict[str, Adapter | None]
    """Candidates by name; None joins directly."""
    kind: TaskKind = "binary-classification"
    """What g_S labels: images or pixels."""

    def heads(self) -> dict[str, nn.Sequential]:
        """Return g_S∘h of every candidate."""
        return {name: head(adapter, self.task_module) for name, adapter in self.adapters.items()}


def head(adapter: Adapter | None, task_module: nn.Sequential) -> nn.Sequential:
    """Return g_S∘h as one module, or g_S alone."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if adapter is not None:
        parts["adapter"] = adapter
    parts["task"] = task_module
    return nn.Sequential(parts)


def join(question: Question, fetch: Callable[[BlobEntry], Path], device: torch.device) -> Joins:
    """Load the lab's own f and what a question names."""
    request, manifest, task = question.request, question.manifest, question.task
    own = manifest.category_module
    f = safetensors_io.load_frozen(
        build_category_module(manifest.architecture),
        question.teacher.blob(own.digest),
        own,
        device,
    )
    return join_to(f, request, task, fetch)


def join_to(
    category_module: nn.Sequential,
    request: EvaluationRequest,
    task: TaskSpec,
    fetch: Callable[[BlobEntry], Path],
) -> Joins:
    """Load what a request names above an f; that it fits was checked before it was fetched."""
    device = device_of(category_module)
    g = request.task_module
    task_module = safetensors_io.load_frozen(
        build_task_module(request.architecture, task), fetch(g), g, device
    )
    adapters: dict[str, Adapter | None] = {}
    for name, entry in request.candidates.items():
        adapters[name] = None
        if entry is not None:
            adapters[name] = safetensors_io.load_frozen(
                Adapter(entry.spec), fetch(entry.blob), entry.blob, device
            )
    return Joins(category_module, task_module, adapters, task.kind)


def measure(
    joins: Joins, data: LabData, stop: threading.Event | None = None, *, calibrates: bool
) -> tuple[CandidateError, ...]:
    """Return how every candidate does on the lab's validation images.

    `calibrates`: a calibration of each candidate's output is fitted on the holdout.
    """
    f, heads = joins.category_module, joins.heads()
    holdout = scoring.logits(f, heads, data.holdout, stop) if calibrates else {}
    fitted = {name: calibration(y_N, data.holdout.labels_for(y_N)) for name, y_N in holdout.items()}
    validation = scoring.logits(f, heads, data.validation, stop)
    return tuple(
        _result(name, y_N, data.validation, fitted.get(name)) for name, y_N in validation.items()
    )


def calibration(holdout_N: Tensor, labels_N: Tensor) -> Calibration | None:
    """Fit a calibration to a candidate's outputs on the holdout; None if it would not serve.

    The holdout decides whether it serves, too: on validation images the error is measured only.
    Where the maths has no answer, or no fewer of the holdout would be on the wrong side, outputs
    stay as they are: a holdout of a few dozen images is too small to move what it cannot fault.

    Of a segmentation all labelled pixels weigh the same, as they do in its error, and an image's
    are wrong together: its images have to gain by it beyond chance (one-sided 95%).
    """
    labelled = ~labels_N.isnan()
    try:
        fitted = calibrate_by_labels(
            holdout_N[labelled], labels_N[labelled], balanced=labels_N.ndim == 1
        )
    except TransplantError:
        return None
    fitted = Calibration(scale=rounded(fitted.scale), bias=rounded(fitted.bias))
    gains_N = scoring.errors_by_image(holdout_N, labels_N)
    gains_N -= scoring.errors_by_image(fitted.apply(holdout_N), labels_N)
    return fitted if _serves(gains_N, are_images=labels_N.ndim == 1) else None


def _serves(gains_N: Tensor, *, are_images: bool) -> bool:
    """Return whether a holdout's images gain by a calibration; of maps beyond chance."""
    if are_images:
        return float(gains_N.mean()) > 0
    if len(gains_N) < 2:
        return False
    deviation = float(gains_N.std()) / math.sqrt(len(gains_N))
    return float(gains_N.mean()) > CONFIDENCE_Z * deviation


def _result(name: str, y_N: Tensor, images: ImageSet, fitted: Calibration | None) -> CandidateError:
    labels_N = images.labels_for(y_N)
    calibrated = None
    error, mean_iou = _scores(y_N, labels_N)
    if fitted is not None:
        error_then, mean_iou_then = _scores(fitted.apply(y_N), labels_N)
        calibrated = CalibratedError(
            scale=fitted.scale, bias=fitted.bias, error=error_then, mean_iou=mean_iou_then
        )
    return CandidateError(
        name=name,
        error=error,
        mean_iou=mean_iou,
        samples=len(images),
        calibration=calibrated,
    )


def _scores(y_N: Tensor, labels_N: Tensor) -> tuple[float, float | None]:
    """Return error and mean IoU in percent, as they may leave."""
    mean_iou = scoring.mean_iou_percent(y_N, labels_N)
    error = rounded(scoring.error_percent(y_N, labels_N))
    return error, None if mean_iou is None else rounded(mean_iou)

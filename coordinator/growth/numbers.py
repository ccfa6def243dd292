"""What was measured of a merge, and the flat form in which it is stored and shown. Pure.

The registry and a commit's signed merge record keep one number under each key, as they always did;
so do MLflow's metrics and what commands print as JSON::

    teacher_error, teacher_mean_iou                 the lab's own net
    <candidate>_error                               what the join would have, in percent
    <candidate>_uncalibrated_error                  without the calibration of the output
    <candidate>_scale, <candidate>_bias             that calibration, if there is one
    <candidate>_mean_iou                            of a segmentation
    seconds/<stage>                                 time of work
    refinement_steps, few_samples, own_samples, own_samples/learned_from, own_samples/judged_on
    own_samples/error                               of a lab's join, on the operator's samples
    witnesses/answered, witnesses/most_yes          other labs' answers about their rest, percent

Joining with no adapter is the baseline of the others: `no_adapter_error` and `no_adapter_mean_iou`
are without a calibration, and `no_adapter_calibrated_error` is what the join would have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rootstock.common.nets.calibration import Calibration
from rootstock.coordinator.growth.candidates import Candidate

_SECONDS = "seconds/"
_CALIBRATED_BASELINE = f"{Candidate.NO_ADAPTER}_calibrated_error"
_KEYS = {
    "teacher_error": "teacher_error",
    "teacher_mean_iou": "teacher_mean_iou",
    "refinement_steps": "refinement_steps",
    "few_samples": "few_samples",
    "own_few_samples": "own_samples",
    "learned_from": "own_samples/learned_from",
    "judged_on": "own_samples/judged_on",
    "own_error": "own_samples/error",
    "witnesses": "witnesses/answered",
    "most_yes": "witnesses/most_yes",
}
"""Keys of the single numbers, by field."""


@dataclasses.dataclass(frozen=True, slots=True)
class CandidateResult:
    """How a candidate did; all but `Candidate.OWN_SAMPLES` on the lab's private validation data."""

    error: float
    """Percent, of what the join would be, calibration included; of a segmentation
    100 − pixel accuracy."""
    uncalibrated_error: float | None = None
    """Percent; None where it is not known."""
    mean_iou: float | None = None
    """Percent, of a segmentation: calibrated, but for the baseline `Candidate.NO_ADAPTER`."""
    calibration: Calibration | None = None
    """None leaves the output as it is."""


@dataclasses.dataclass(frozen=True, slots=True)
class MergeNumbers:
    """Everything that was measured of one merge; None is what was not."""

    teacher_error: float | None = None
    """Percent, as the teacher's manifest says."""
    teacher_mean_iou: float | None = None
    candidates: Mapping[Candidate, CandidateResult] = dataclasses.field(default_factory=dict)
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """By stage."""
    refinement_steps: float | None = None
    few_samples: float | None = None
    """How many samples the few-sample stage learned from."""
    own_few_samples: float | None = None
    """How many of these are the operator's."""
    learned_from: float | None = None
    judged_on: float | None = None
    """How many of the operator's samples `Candidate.OWN_SAMPLES`, or `own_error`, rests on."""
    own_error: float | None = None
    """Percent, of a lab's join on the operator's own samples: the mean of both sides' errors."""
    witnesses: float | None = None
    """How many other labs have said how often the join says yes on their rest."""
    most_yes: float | None = None
    """The largest of these shares, in percent."""
    other: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """By its key, what this version does not know."""

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> MergeNumbers:
        """Read the flat form; what is no number, as a commit's record has it, too, is left out."""
        left: dict[str, float] = {
            key: value for key, value in flat.items() if type(value) in (int, float)
        }
        single = {field: left.pop(key, None) for field, key in _KEYS.items()}
        candidates = {each: _take(each, left) for each in Candidate if f"{each}_error" in left}
        seconds = {
            key.removeprefix(_SECONDS): left.pop(key)
            for key in list(left)
            if key.startswith(_SECONDS)
        }
        return cls(**single, candidates=candidates, seconds=seconds, other=left)

    def flat(self) -> dict[str, float]:
        """Return the flat form; see the module."""
        single = {key: getattr(self, field) for field, key in _KEYS.items()}
        flat = {key: value for key, value in single.items() if value is not None}
        for candidate, result in self.candidates.items():
            flat |= _flat(candidate, result)
        flat |= {f"{_SECONDS}{stage}": spent for stage, spent in self.seconds.items()}
        return flat | dict(self.other)

    def __or__(self, later: MergeNumbers) -> MergeNumbers:
        """Return these numbers with those that were measured later added, or in their place."""
        single = {
            field: getattr(self if getattr(later, field) is None else later, field)
            for field in _KEYS
        }
        return MergeNumbers(
            **single,
            candidates={**self.candidates, **later.candidates},
            seconds={**self.seconds, **later.seconds},
            other={**self.other, **later.other},
        )

    def without(self, candidate: Candidate) -> MergeNumbers:
        """Return these numbers but for a candidate's."""
        left = {each: result for each, result in self.candidates.items() if each != candidate}
        return dataclasses.replace(self, candidates=left)

    @property
    def shown_errors(self) -> dict[Candidate, float]:
        """Errors side by side, simplest candidate first; the baseline's is uncalibrated."""
        return {
            each: _flat(each, self.candidates[each])[f"{each}_error"]
            for each in Candidate
            if each in self.candidates
        }

    def error_of(self, candidate: Candidate | None) -> float | None:
        """Return a candidate's error, the teacher's of None, where it is known."""
        if candidate is None:
            return self.teacher_error
        result = self.candidates.get(candidate)
        return None if result is None else result.error


def _take(candidate: Candidate, left: dict[str, float]) -> CandidateResult:
    error = left.pop(f"{candidate}_error")
    uncalibrated = left.pop(f"{candidate}_uncalibrated_error", None)
    if candidate is Candidate.NO_ADAPTER:
        error, uncalibrated = left.pop(_CALIBRATED_BASELINE, error), error
    scale, bias = (left.pop(f"{candidate}_{part}", None) for part in ("scale", "bias"))
    return CandidateResult(
        error,
        uncalibrated,
        left.pop(f"{candidate}_mean_iou", None),
        None if scale is None or bias is None else Calibration(scale=scale, bias=bias),
    )


def _flat(candidate: Candidate, result: CandidateResult) -> dict[str, float]:
    error, uncalibrated = result.error, result.uncalibrated_error
    flat: dict[str, float | None] = {}
    if candidate is Candidate.NO_ADAPTER and uncalibrated is not None:
        if result.calibration is not None or error != uncalibrated:
            flat[_CALIBRATED_BASELINE] = error
        error, uncalibrated = uncalibrated, None
    flat |= {
        f"{candidate}_error": error,
        f"{candidate}_uncalibrated_error": uncalibrated,
        f"{candidate}_mean_iou": result.mean_iou,
    }
    if result.calibration is not None:
        flat[f"{candidate}_scale"] = result.calibration.scale
        flat[f"{candidate}_bias"] = result.calibration.bias
    return {key: value for key, value in flat.items() if value is not None}

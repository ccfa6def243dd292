"""Which candidate adapter is merged, if any: the policy over a lab's numbers. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from rootstock.common.errors import LimitError, SchemaError
from rootstock.coordinator.config import AcceptanceRule

CANDIDATES = ("no_adapter", "closed_form", "zero_sample", "few_sample", "refined")
"""Every candidate, simplest first: of two with the same error the simpler one is taken."""


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a merge goes ahead, with which candidate, and why."""

    accepted: bool
    reason: str
    candidate: str | None


def acceptance(policy: AcceptanceRule, numbers: Mapping[str, float]) -> Verdict:
    """Judge the candidates by their errors on the owning lab's validation data.

    Parameters
    ----------
    policy
        The highest error, and the highest distance to the teacher's, that may be merged; whether
        the best candidate is taken, or the first and simplest that keeps to both.
    numbers
        `teacher_error`, and the errors of each of `CANDIDATES` that was evaluated (`error_key`), in
        percent. Other keys are ignored.

    Raises
    ------
    SchemaError
        If `teacher_error` is missing: without it there is nothing to compare with.
    LimitError
        If an error is not a number from 0 to 100.
    """
    if "teacher_error" not in numbers:
        raise SchemaError("acceptance: 'teacher_error' is missing; the manifest's metrics have it")
    teacher = _percent("teacher_error", numbers)
    errors = {
        name: _percent(error_key(name, numbers), numbers)
        for name in CANDIDATES
        if error_key(name, numbers) in numbers
    }
    if not errors:
        return Verdict(False, "acceptance: the lab evaluated no candidate", None)
    if policy.take == "first":
        first = next((name for name in errors if _within(policy, errors[name], teacher)), None)
        if first is not None:
            return _first(first, errors, teacher)
    best = min(errors, key=lambda name: (errors[name], CANDIDATES.index(name)))
    found = f"{best} has an error of {errors[best]:.1f}%"
    if errors[best] > policy.max_error:
        rule = f"at most {policy.max_error:.1f}% may be merged (acceptance.max_error)"
        return Verdict(False, f"acceptance: the best candidate, {found}; {rule}", best)
    if errors[best] > teacher + policy.max_above_teacher:
        rule = (
            f"at most {policy.max_above_teacher:.1f} points above the teacher's {teacher:.1f}% "
            "may be merged (acceptance.max_above_teacher)"
        )
        return Verdict(False, f"acceptance: the best candidate, {found}; {rule}", best)
    return Verdict(True, f"{found}, the teacher {teacher:.1f}%", best)


def _within(policy: AcceptanceRule, error: float, teacher: float) -> bool:
    return error <= policy.max_error and error <= teacher + policy.max_above_teacher


def _first(first: str, errors: Mapping[str, float], teacher: float) -> Verdict:
    """Say which was taken as the first that will do, and what simpler ones would not."""
    simpler = [name for name in errors if CANDIDATES.index(name) < CANDIDATES.index(first)]
    passed = "".join(f", {name} {errors[name]:.1f}%" for name in simpler)
    reason = (
        f"{first} has an error of {errors[first]:.1f}%, the teacher {teacher:.1f}%{passed}: the "
        "first that will do"
    )
    return Verdict(True, reason, first)


def as_it_came(policy: AcceptanceRule, what: str, error: float) -> Verdict:
    """Judge a join that is there already, by its own error.

    Parameters
    ----------
    policy
        The highest error that may be merged.
    what
        How the reason names it ("the teacher net").
    error
        In percent.

    Raises
    ------
    LimitError
        If it is not a number from 0 to 100.
    """
    found = f"{what} has an error of {_percent(what, {what: error}):.1f}%"
    if error > policy.max_error:
        rule = f"at most {policy.max_error:.1f}% may be merged (acceptance.max_error)"
        return Verdict(False, f"acceptance: {found}; {rule}", None)
    return Verdict(True, found, None)


def error_key(candidate: str, numbers: Mapping[str, float]) -> str:
    """Return which number is the error that the edge would have, calibration included.

    `<candidate>_error`; but `no_adapter_error` is the baseline, without a calibration.
    """
    calibrated = f"{candidate}_calibrated_error"
    return calibrated if calibrated in numbers else f"{candidate}_error"


def _percent(name: str, numbers: Mapping[str, float]) -> float:
    value = numbers[name]
    if not 0.0 <= value <= 100.0:  # false for NaN, too
        raise LimitError(f"acceptance: {name} = {value}; an error is a percentage from 0 to 100")
    return value

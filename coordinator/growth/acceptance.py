"""Which candidate adapter is merged, if any: the policy over a lab's numbers. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from rootstock.common.errors import LimitError, SchemaError
from rootstock.coordinator.config import AcceptanceConfig, AcceptanceRule
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.numbers import MergeNumbers


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a merge goes ahead, with which candidate, and why."""

    accepted: bool
    reason: str
    candidate: Candidate | None


def acceptance(policy: AcceptanceRule, numbers: MergeNumbers) -> Verdict:
    """Judge the candidates by their errors on the owning lab's validation data.

    SchemaError if the teacher's is missing, LimitError if one is not a number from 0 to 100.
    """
    teacher = _percent("teacher_error", numbers.teacher_error)
    results = numbers.candidates
    errors = {
        each: _percent(f"{each}_error", results[each].error)
        for each in Candidate
        if each in results
    }
    if not errors:
        return Verdict(False, "acceptance: the lab evaluated no candidate", None)
    if policy.take == "first":
        for candidate, error in errors.items():
            if error <= policy.max_error and error <= teacher + policy.max_above_teacher:
                return _first(candidate, errors, teacher)
    best = min(errors, key=errors.__getitem__)  # the first, and simplest, of equals
    stated = f"{best} has an error of {errors[best]:.1f}%"
    if errors[best] > policy.max_error:
        rule = _max_error(policy)
    elif errors[best] > teacher + policy.max_above_teacher:
        rule = (
            f"at most {policy.max_above_teacher:.1f} points above the teacher's {teacher:.1f}% "
            "may be merged (acceptance.max_above_teacher)"
        )
    else:
        return Verdict(True, f"{stated}, the teacher {teacher:.1f}%", best)
    return Verdict(False, f"acceptance: the best candidate, {stated}; {rule}", best)


def accept_unevaluated(policy: AcceptanceRule, what: str, error: float | None) -> Verdict:
    """Judge a join that no lab is asked about by an error (in percent) that is known; see above."""
    percent = _percent(what, error)
    stated = f"{what} has an error of {percent:.1f}%"
    if percent > policy.max_error:
        return Verdict(False, f"acceptance: {stated}; {_max_error(policy)}", None)
    return Verdict(True, stated, None)


def own_say(policy: AcceptanceConfig, task: str, numbers: MergeNumbers) -> str | None:
    """Return why the operator's own samples speak against a join that a lab praises, or None.

    Fewer than `min_samples` are reported and decide nothing.
    """
    error, count = numbers.own_error, numbers.judged_on or 0.0
    if error is None or count < max(policy.min_samples, 1):
        return None
    if error <= policy.rule(task).max_error:
        return None
    return (
        f"acceptance: on {count:.0f} of the operator's own samples the join has an error of "
        f"{error:.1f}%, both sides counted alike; {_max_error(policy.rule(task))}"
    )


def doubts(
    policy: AcceptanceConfig, *, first: str | None, stated: float | None, reported: float | None
) -> list[str]:
    """Return why a merge that follows the rule waits for the operator all the same.

    `first` names the lab, if nothing of it was merged yet. `stated` is how many validation images
    the manifest says its numbers rest on, `reported` how many the report says; None: it does not.
    """
    found = []
    if first is not None and policy.first == "review":
        found.append(
            f"review: nothing of {first} was merged yet, so nobody but {first} knows how good its "
            "net is (acceptance.first)"
        )
    counts = [count for count in (stated, reported) if count is not None]
    fewest = min(counts, default=0.0)
    if fewest < policy.min_samples:
        found.append(
            f"review: the lab's numbers rest on {fewest:.0f} validation images; at least "
            f"{policy.min_samples} are wanted (acceptance.min_samples)"
        )
    return found


def _first(first: Candidate, errors: Mapping[Candidate, float], teacher: float) -> Verdict:
    """Accept the first candidate that will do; the reason names the simpler ones that would not."""
    simpler = list(errors)[: list(errors).index(first)]
    passed = "".join(f", {name} {errors[name]:.1f}%" for name in simpler)
    reason = (
        f"{first} has an error of {errors[first]:.1f}%, the teacher {teacher:.1f}%{passed}: the "
        "first that will do"
    )
    return Verdict(True, reason, first)


def _max_error(policy: AcceptanceRule) -> str:
    return f"at most {policy.max_error:.1f}% may be merged (acceptance.max_error)"


def _percent(name: str, value: float | None) -> float:
    if value is None:
        raise SchemaError(f"acceptance: {name!r} is missing; the manifest's metrics have it")
    if not 0.0 <= value <= 100.0:  # false for NaN, too
        raise LimitError(f"acceptance: {name} = {value}; an error is a percentage from 0 to 100")
    return value

"""The state machines of submissions and merges: which step may follow which."""

from __future__ import annotations

from enum import StrEnum

from rootstock.common.errors import ConflictError
from rootstock.coordinator.growth.operations import OperationKind


class SubmissionState(StrEnum):
    """Where a submitted teacher net stands."""

    RECEIVING = "receiving"
    RECEIVED = "received"
    ADMITTED = "admitted"
    REFUSED = "refused"


class MergeState(StrEnum):
    """Where one transplanting operation stands."""

    QUEUED = "queued"
    DISTILLING = "distilling"
    EVALUATING = "evaluating"
    REVIEWING = "reviewing"
    MERGED = "merged"
    REJECTED = "rejected"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


OPEN_MERGES = (
    MergeState.QUEUED,
    MergeState.DISTILLING,
    MergeState.EVALUATING,
    MergeState.REVIEWING,
)
"""States in which a merge still has work to do; after a crash these are carried on."""

_SUBMISSION: dict[SubmissionState, frozenset[SubmissionState]] = {
    SubmissionState.RECEIVING: frozenset({SubmissionState.RECEIVED}),
    SubmissionState.RECEIVED: frozenset({SubmissionState.ADMITTED, SubmissionState.REFUSED}),
    SubmissionState.ADMITTED: frozenset(),
    SubmissionState.REFUSED: frozenset(),
}

_MERGE: dict[MergeState, frozenset[MergeState]] = {
    MergeState.QUEUED: frozenset({MergeState.DISTILLING, MergeState.REJECTED, MergeState.FAILED}),
    MergeState.DISTILLING: frozenset(
        {MergeState.EVALUATING, MergeState.REJECTED, MergeState.FAILED}
    ),
    MergeState.EVALUATING: frozenset(
        {
            MergeState.DISTILLING,  # what needs no learning was not good enough
            MergeState.REVIEWING,
            MergeState.MERGED,
            MergeState.REJECTED,
            MergeState.FAILED,
        }
    ),
    MergeState.REVIEWING: frozenset({MergeState.MERGED, MergeState.REJECTED, MergeState.FAILED}),
    MergeState.MERGED: frozenset({MergeState.ROLLED_BACK}),
    MergeState.REJECTED: frozenset(),
    MergeState.FAILED: frozenset(),
    MergeState.ROLLED_BACK: frozenset(),
}


def check_submission(name: str, old: SubmissionState, new: SubmissionState) -> None:
    """Refuse a step that the state machine does not have; ConflictError says what may follow."""
    _check(f"submission {name}", old, new, _SUBMISSION[old])


def check_merge(name: str, old: MergeState, new: MergeState, operation: OperationKind) -> None:
    """Refuse a step that the state machine does not have; see `check_submission`."""
    legal = _MERGE[old]
    if old is MergeState.QUEUED and operation.is_direct:  # it is not distilled or evaluated
        legal |= {MergeState.REVIEWING, MergeState.MERGED}
    _check(f"merge {name}", old, new, legal)


def _check(what: str, old: StrEnum, new: StrEnum, legal: frozenset[StrEnum]) -> None:
    if new in legal:
        return
    after = ", ".join(sorted(legal)) or "nothing: it is a final state"
    raise ConflictError(
        f"{what} is '{old}' and cannot become '{new}'; what may follow is {after}. "
        "Read its present state again and carry on from there"
    )

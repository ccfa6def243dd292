from __future__ import annotations

import pytest

from common.errors import ConflictError
from coordinator.transplant import read_errors
from protos.rootstock.federation.v1.federation_pb2 import CandidateResult, ReportEvaluationRequest

ASKED = frozenset({"no_adapter", "zero_sample"})


def _report(manifest: str = "", **errors: float) -> ReportEvaluationRequest:
    return ReportEvaluationRequest(
        results=[CandidateResult(name=name, error=error) for name, error in errors.items()],
        refinement_manifest_digest=manifest,
        refined_error=3.0,
    )


def test_errors_by_candidate() -> None:
    errors = read_errors(_report(no_adapter=50.0, zero_sample=20.0), ASKED)
    assert errors == {"no_adapter": 50.0, "zero_sample": 20.0}


def test_a_refined_error_counts_only_with_its_adapter() -> None:
    errors = read_errors(_report("a" * 64, no_adapter=50.0, zero_sample=20.0), ASKED)
    assert errors["refined"] == 3.0


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        ({"no_adapter": 50.0}, "asked for were"),
        ({"no_adapter": 50.0, "zero_sample": 1.0, "refined": 0.0}, "asked for were"),
        ({"no_adapter": 50.0, "zero_sample": 100.1}, "0 to 100"),
        ({"no_adapter": 50.0, "zero_sample": -0.1}, "0 to 100"),
        ({"no_adapter": 50.0, "zero_sample": float("nan")}, "0 to 100"),
        ({"no_adapter": 50.0, "zero_sample": float("inf")}, "0 to 100"),
    ],
)
def test_a_peer_s_number_is_checked_before_it_is_used(
    errors: dict[str, float], message: str
) -> None:
    with pytest.raises(ConflictError, match=message):
        read_errors(_report(**errors), ASKED)

"""What `coordinator status` says of the history."""

from __future__ import annotations

import pytest

from rootstock.deploy.cli.coordinator.tables import history_line
from rootstock.protos.rootstock.operator.v1 import operator_pb2 as pb

PAGE = "http://127.0.0.1:5000/#/experiments/1"


@pytest.mark.parametrize(
    ("history", "lines"),
    [
        (pb.HistoryStatus(), ["History: 0 logged"]),
        (
            pb.HistoryStatus(name="animals", page=PAGE, logged=3),
            ["History: 3 logged", f"MLflow page: {PAGE}"],
        ),
        (
            pb.HistoryStatus(name="animals-01234567", page=PAGE, logged=3, waiting=2),
            [
                "History: 3 logged, 2 wait",
                f"MLflow page: {PAGE}",
                "'animals' is another's there; this net is 'animals-01234567'.",
            ],
        ),
        (
            pb.HistoryStatus(
                logged=3,
                waiting=1,
                error="MLflow at http://x does not answer",
                failing_since="2026-01-02T14:02:31+00:00",
            ),
            [
                "History: 3 logged, 1 waits since 2026-01-02 14:02 UTC: MLflow at http://x does "
                "not answer"
            ],
        ),
        (
            pb.HistoryStatus(error="no", failing_since="2026-01-02T14:02:31+00:00"),
            ["History: 0 logged, fails since 2026-01-02 14:02 UTC: no"],
        ),
    ],
)
def test_the_history_is_told_with_what_keeps_it(
    history: pb.HistoryStatus, lines: list[str]
) -> None:
    answer = pb.GetStatusResponse(net="animals", history=history)
    assert history_line(answer).splitlines() == lines

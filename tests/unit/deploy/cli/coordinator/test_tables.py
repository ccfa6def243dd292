"""What `coordinator status` says of the history."""

from __future__ import annotations

import pytest
from rich.console import Console

from rootstock.deploy.cli.coordinator.tables import history_line, status_tables
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


def test_why_a_merge_waits_is_a_sentence_and_no_column() -> None:
    reason = "witnesses: another lab has the join say yes to 23.7% of 38 images of its rest"
    merge = pb.MergeStatus(
        merge_id="mrg-0002", category="lab-one-cat", task="classification", state="reviewing",
        operation="join", step=3000, steps=3000, reason=reason,
    )  # fmt: skip
    console = Console(width=80, record=True)
    for each in status_tables(pb.GetStatusResponse(net="animals", merges=[merge])):
        console.print(each, soft_wrap=isinstance(each, str))
    lines = console.export_text().splitlines()
    assert f"mrg-0002: {reason}" in lines
    assert len(lines) < 14

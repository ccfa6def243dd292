from __future__ import annotations

import io

from rich.console import Console

from deploy.federation.tables import category_rows, category_table
from protos.rootstock.operator.v1 import operator_pb2


def printed(**numbers: float) -> list[str]:
    merge = operator_pb2.MergeStatus(
        category="aeroplane", state="rejected", seconds=117, numbers=numbers
    )
    text = io.StringIO()
    rows = category_rows(operator_pb2.GetStatusResponse(merges=[merge]))
    Console(file=text, width=80).print(category_table(rows))
    return text.getvalue().splitlines()


def test_errors_without_and_with_calibration_stand_side_by_side_in_80_columns() -> None:
    names = ("zero_sample", "few_sample", "refined")
    numbers = {"teacher_error": 12.3, "no_adapter_error": 49.1}
    for name in names:
        numbers |= {f"{name}_error": 12.0, f"{name}_uncalibrated_error": 38.7}
    lines = printed(**numbers)
    (row,) = [line for line in lines if "aeroplane" in line]
    assert row.split() == [
        "aeroplane", "12.3", "49.1", *["38.7→12.0"] * 3, "117", "rejected",
    ]  # fmt: skip
    assert max(map(len, lines)) <= 80


def test_what_a_calibration_did_not_change_is_said_once() -> None:
    lines = printed(refined_error=2.0, refined_uncalibrated_error=2.0)
    (row,) = [line for line in lines if "aeroplane" in line]
    assert row.split() == ["aeroplane", *["–"] * 4, "2.0", "117", "rejected"]

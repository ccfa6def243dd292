from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from rootstock.deploy.federation.tables import category_rows, category_tables
from rootstock.protos.rootstock.operator.v1 import operator_pb2


def printed(*merges: operator_pb2.MergeStatus) -> list[str]:
    text = io.StringIO()
    rows = category_rows(operator_pb2.GetStatusResponse(merges=merges))
    for table in category_tables(rows):
        Console(file=text, width=80).print(table)
    return text.getvalue().splitlines()


def merge(task: str = "classification", **numbers: float) -> operator_pb2.MergeStatus:
    return operator_pb2.MergeStatus(
        category="aeroplane", task=task, state="rejected", seconds=117, numbers=numbers
    )


def test_errors_without_and_with_calibration_stand_side_by_side_in_80_columns() -> None:
    names = ("zero_sample", "few_sample", "refined")
    numbers: dict[str, Any] = {"teacher_error": 12.3, "no_adapter_error": 49.1}
    for name in names:
        numbers |= {f"{name}_error": 12.0, f"{name}_uncalibrated_error": 38.7}
    lines = printed(merge(**numbers))
    (row,) = [line for line in lines if "aeroplane" in line]
    assert row.split() == [
        "aeroplane", "12.3", "49.1", *["38.7→12.0"] * 3, "117", "rejected",
    ]  # fmt: skip
    assert max(map(len, lines)) <= 80


def test_what_a_calibration_did_not_change_is_said_once() -> None:
    lines = printed(merge(refined_error=2.0, refined_uncalibrated_error=2.0))
    (row,) = [line for line in lines if "aeroplane" in line]
    assert row.split() == ["aeroplane", *["–"] * 4, "2.0", "117", "rejected"]


def test_each_task_has_a_table_of_its_own_and_a_segmentation_its_mean_iou() -> None:
    lines = printed(
        merge(teacher_error=12.0, refined_error=13.0),
        merge("segmentation", teacher_error=21.0, teacher_mean_iou=63.25, refined_mean_iou=60.0),
    )
    titles = [line.strip() for line in lines if "in %" in line]
    assert titles == [
        "classification: error in % on each lab's validation data (→ calibrated)",
        "segmentation: error in % on each lab's validation data (→ calibrated)",
        "segmentation: mean IoU in %, with the calibration if there is one",
    ]
    rows = [line.split()[1:6] for line in lines if "aeroplane" in line]
    assert rows == [
        ["12.0", "–", "–", "–", "13.0"],
        ["21.0", "–", "–", "–", "–"],
        ["63.2", "–", "–", "–", "60.0"],
    ]
    assert max(map(len, lines)) <= 80


def test_one_task_needs_no_name() -> None:
    assert printed(merge())[0].startswith("Error in % on each lab's validation data")


@pytest.mark.parametrize("category", ["squamous-cell-carcinoma", "x" * 63, "cat"])
@pytest.mark.parametrize("before", [17.5, 100.0])
@pytest.mark.parametrize("asked", [3, 4])
def test_no_number_is_broken_however_wide_the_columns_are(
    category: str, before: float, asked: int
) -> None:
    numbers: dict[str, Any] = {"teacher_error": 17.5, "no_adapter_error": 100.0}
    for name in ("zero_sample", "few_sample", "refined", "closed_form")[:asked]:
        numbers |= {f"{name}_error": 10.9, f"{name}_uncalibrated_error": before}
    lines = printed(
        operator_pb2.MergeStatus(
            category=category, task="classification", state="rolled_back", numbers=numbers
        )
    )
    assert max(map(len, lines)) <= 80
    text = " ".join(lines)
    assert text.count(f"{before:.1f}→") == asked
    assert re.findall(r"[\d.]+", text.replace("v", " ")).count("10.9") == asked
    folded = "".join(line.split()[0] for line in lines[4:] if line.strip())
    assert category in folded.replace("─", "")

"""The ledger: lines that stay, read by people and by programs."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from rootstock.common.errors import LimitError, SchemaError, StorageError
from rootstock.site_agent.consent.ledger import Ledger, read_ledger
from rootstock.site_agent.consent.waiting import MAX_WAITING, WaitingQuestions
from rootstock.site_agent.spool.documents import CalibratedError, CandidateError, EvaluationReport


def lines(state: Path) -> list[dict[str, object]]:
    (path,) = (state / "ledger").iterdir()
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_lists_what_left(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "ab12")
    ledger.manifest("c" * 64, {"error/classification": 12.5})
    ledger.blob("c" * 64, "category_module", "d" * 64, 4000)
    ledger.report("evl-0001", {"no_adapter.error": 50.0})
    first, second, third = read_ledger(tmp_path)
    assert (first.what, first.subject, first.numbers) == (
        "manifest", "c" * 64, {"error/classification": 12.5},
    )  # fmt: skip
    assert (second.name, second.digest, second.bytes) == ("category_module", "d" * 64, 4000)
    assert (third.coordinator, third.subject) == ("ab12", "evl-0001")
    assert lines(tmp_path)[2] == {
        "at": third.at,
        "coordinator": "ab12",
        "what": "report",
        "subject": "evl-0001",
        "numbers": {"no_adapter.error": 50.0},
    }
    (path,) = (tmp_path / "ledger").iterdir()
    assert path.name == f"{first.at[:7]}.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_line_that_a_kill_cut_short_spoils_no_other(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "ab12")
    ledger.report("evl-0001", {})
    (path,) = (tmp_path / "ledger").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    assert [entry.subject for entry in read_ledger(tmp_path)] == ["evl-0001"]
    Ledger(tmp_path, "ab12").report("evl-0002", {})
    assert [entry.subject for entry in read_ledger(tmp_path)] == ["evl-0001", "evl-0002"]
    assert path.read_bytes().startswith(whole)  # only ever added to


def test_a_line_that_is_damaged_is_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "ab12")
    for number in range(3):
        ledger.report(f"evl-000{number}", {})
    (path,) = (tmp_path / "ledger").iterdir()
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second.replace(b"evl", b'"evl') + third)
    with pytest.raises(SchemaError, match=rf"ledger's line 2 of {path} does not fit its schema"):
        list(read_ledger(tmp_path))


def test_what_the_disk_does_not_take_as_a_whole_is_an_error(tmp_path: Path) -> None:
    """Whoever writes it would otherwise send what no line names."""
    ledger = Ledger(tmp_path, "ab12")
    ledger.report("evl-0001", {})
    (path,) = (tmp_path / "ledger").iterdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system takes the first bytes of the line, and says so.
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, before[1]))
    try:
        with pytest.raises(StorageError, match=rf"{path}: File too large"):
            ledger.report("evl-0002", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [entry.subject for entry in read_ledger(tmp_path)] == ["evl-0001"]
    ledger.report("evl-0003", {})
    assert [entry.subject for entry in read_ledger(tmp_path)] == ["evl-0001", "evl-0003"]


def test_every_number_of_a_report_has_a_name() -> None:
    calibration = CalibratedError(scale=0.5, bias=-1.0, error=2.5, mean_iou=60.0)
    report = EvaluationReport(
        evaluation_id="evl-0001",
        results=(
            CandidateError(name="no_adapter", error=12.5, samples=40),
            CandidateError(
                name="few_sample", error=8.0, mean_iou=55.5, samples=40, calibration=calibration
            ),
        ),
        refined_error=3.0,
        refined_calibration=calibration,
        refinement_seconds=1.5,
        refinement_steps=20,
    )
    told = report.numbers()
    assert told["no_adapter.error"] == 12.5
    assert told["few_sample.calibration.mean_iou"] == 60.0
    assert told["refined.calibration.scale"] == 0.5
    assert (told["refined.seconds"], told["refined.steps"]) == (1.5, 20)
    assert len(told) == 2 + 7 + 1 + 4 + 2
    assert EvaluationReport(evaluation_id="evl-0002", failure="no task").numbers() == {}


def test_questions_that_wait_survive_and_are_bounded(tmp_path: Path) -> None:
    waiting = WaitingQuestions(tmp_path / "waiting")
    assert waiting.names() == []
    waiting.remove("evl-0000")  # never waited
    for number in range(MAX_WAITING):
        waiting.add(f"evl-{number:04d}", b"question")
    again = WaitingQuestions(tmp_path / "waiting")
    assert len(again.names()) == MAX_WAITING
    again.add("evl-0001", b"once more")  # has its place
    assert again.read("evl-0001") == b"once more"
    with pytest.raises(LimitError, match="256 questions wait"):
        again.add("evl-9999", b"q")
    with pytest.raises(LimitError, match="has 1048576 bytes"):
        again.add("evl-0001", bytes(1 << 20))
    again.remove("evl-0001")
    again.add("evl-9999", b"q")

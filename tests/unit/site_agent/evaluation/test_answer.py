"""What a lab does about questions: one that nobody signed draws nothing and spoils no other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rootstock.common.errors import DataError
from rootstock.common.identity.keys import SigningKey
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.site_agent.lab import AgentLab
from tests.support.questioned_lab import QuestionedLab

STRANGER = SigningKey.generate()


def test_an_unsigned_question_does_not_draw_the_numbers_that_were_sent_before(
    tmp_path: Path,
) -> None:
    lab = QuestionedLab(tmp_path)
    lab.answer(lab.message())
    lab.spool.acknowledge_report("evl-0001")
    lab.answer(pb.EvaluationRequest(evaluation_id="evl-0001"))
    lab.answer(lab.message(key=STRANGER))
    assert lab.spool.reports() == []
    assert lab.refused == []  # nor is what the coordinator has replaced by a failure
    lab.answer(lab.message())  # the coordinator has lost it
    (again,) = lab.spool.reports()
    assert again.results


@pytest.mark.parametrize("key", [None, STRANGER])
def test_an_unsigned_question_takes_no_place_of_a_signed_one(
    tmp_path: Path, key: SigningKey | None
) -> None:
    lab = QuestionedLab(tmp_path, questions=1)
    for _ in range(3):
        lab.answer(lab.message(2, key))
    assert lab.spool.reports() == []
    assert {report.evaluation_id for report in lab.refused} == {"evl-0001-2"}
    assert all("not signed" in report.failure for report in lab.refused)
    lab.answer(lab.message(2))  # the day's one question
    (report,) = lab.spool.reports()
    assert report.results
    assert report.failure == ""


def test_numbers_that_leave_again_are_charged_again(tmp_path: Path) -> None:
    lab = QuestionedLab(tmp_path, numbers=4)  # two a report
    for _ in range(3):
        lab.answer(lab.message())
        for report in lab.spool.reports():
            lab.spool.acknowledge_report(report.evaluation_id)
    assert lab.events().count("evaluation.recalled") == 1
    assert lab.lab.consent.waiting.names() == ["evl-0001"]


def test_where_no_numbers_may_leave_none_is_sent_again(tmp_path: Path) -> None:
    lab = QuestionedLab(tmp_path)
    lab.answer(lab.message())
    lab.spool.acknowledge_report("evl-0001")
    shutil.rmtree(tmp_path / "consent")  # a day later
    closed = QuestionedLab(tmp_path, numbers=0)
    closed.answer(closed.message())
    assert closed.spool.reports() == []
    (failure,) = closed.refused
    assert "this lab allows consent.numbers = 0 a day" in failure.failure
    assert not failure.results


def test_a_report_that_is_refused_makes_no_question_free(tmp_path: Path) -> None:
    lab = QuestionedLab(tmp_path, questions=1)
    message = lab.message()
    for _ in range(3):
        lab.answer(message)
        for report in lab.spool.reports():
            lab.spool.withdraw_report(report, "the coordinator does not take it")
    assert lab.downloads == 1
    assert lab.lab.consent.waiting.names() == ["evl-0001"]


def test_a_waiting_question_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    lab = QuestionedLab(tmp_path)
    waiting = lab.lab.consent.waiting
    unreadable = {
        "evl-0001": bytes(8),
        "evl-0002": lab.message(merge=7).SerializeToString(),
        "evl-0003": lab.message(merge=3, key=STRANGER).SerializeToString(),
        "evl-0004": bytes(300 << 10),
    }
    folder = tmp_path / "consent"
    waiting.add("evl-0005", lab.message(merge=5).SerializeToString())
    (questions,) = folder.glob("*.waiting")
    for name, data in unreadable.items():
        (questions / name).write_bytes(data)
    assert lab.answer_waiting()
    assert waiting.names() == []
    assert [report.evaluation_id for report in lab.spool.reports()] == ["evl-0005"]
    assert lab.refused == []
    assert lab.events().count("evaluation.set_aside") == 4
    (aside,) = folder.glob("*.aside")
    assert sorted(path.name[:8] for path in aside.iterdir()) == sorted(unreadable)


def test_a_coordinator_that_signs_no_questions_is_to_be_updated(tmp_path: Path) -> None:
    lab = QuestionedLab(tmp_path)
    lab.answer(lab.message(key=None))
    lab.answer(lab.message(key=STRANGER))
    unsigned, foreign = (report.failure for report in lab.refused)
    assert "signs no questions; update it" in unsigned
    assert "join it again" in foreign


def test_a_witness_is_asked_once_at_each_turn_of_a_merge(tmp_path: Path) -> None:
    lab = QuestionedLab(tmp_path, questions=5)
    for message in (
        lab.witness_message(1),
        lab.witness_message(2),
        lab.witness_message(2, turn=2),
        lab.witness_message(2, merge=2),
    ):
        lab.answer(message)
    reports = {report.evaluation_id: report for report in lab.spool.reports()}
    answered = [name for name, report in reports.items() if report.rest is not None]
    assert answered == ["evl-0001-2-rest-2", "evl-0001-rest-1", "evl-0002-rest-2"]
    assert "has answered 'evl-0001-rest-1' as a witness" in reports["evl-0001-rest-2"].failure
    lab.answer(lab.message())  # the day's fifth question
    lab.answer(lab.witness_message(merge=3))
    assert lab.lab.consent.waiting.names() == ["evl-0003-rest-1"]


def test_a_lab_without_a_receipt_is_no_witness(tmp_path: Path) -> None:
    lab = QuestionedLab(tmp_path)
    (teacher,) = lab.spool.acknowledged()
    lab.spool.queue_again(teacher)  # as before its receipt
    lab.answer(lab.witness_message())
    (report,) = lab.spool.reports()
    assert "has given no receipt for a teacher net of this lab's" in report.failure
    assert lab.downloads == 0


def test_images_that_cannot_be_read_fail_a_witness_s_answer_and_not_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own question is seen again at the next start: the lab's operator mounts them."""

    def unmounted(_: object) -> None:
        raise DataError("data.folder: no such folder")

    monkeypatch.setattr(AgentLab, "_read", unmounted)
    lab = QuestionedLab(tmp_path)
    lab.answer(lab.witness_message())
    (report,) = lab.spool.reports()
    assert report.rest is None
    assert report.failure.startswith("DataError: data.folder")
    with pytest.raises(DataError):
        lab.answer(lab.message())

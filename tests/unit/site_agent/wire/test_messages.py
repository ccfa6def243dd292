"""What the coordinator sends is read whole or refused, and reports lose nothing on their way."""

from __future__ import annotations

from typing import Any

import pytest

from rootstock.common.errors import LimitError, SchemaError
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry, TensorEntry
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.site_agent.spool.documents import CalibratedError, CandidateError, EvaluationReport
from rootstock.site_agent.wire import messages
from tests.support import digits_lab

SPEC = AdapterSpec(in_channels=8, out_channels=8)
WEIGHT = TensorEntry(dtype="F32", shape=(8, 8), sha256="c" * 64)
BLOB = BlobEntry(digest="b" * 64, size=400, tensors={"weight": WEIGHT})
ADAPTER = AdapterEntry(spec=SPEC, blob=BLOB)


def asked(**changes: Any) -> messages.EvaluationAsked:
    values: dict[str, Any] = {
        "evaluation_id": "evl-0001",
        "merge_id": "mrg-0001",
        "manifest_digest": "a" * 64,
        "task": "classification",
        "architecture": digits_lab.SPEC.canonical(),
        "task_module": BLOB.canonical(),
        "candidates": [
            pb.Candidate(name="no_adapter"),
            pb.Candidate(name="zero_sample", adapter=ADAPTER.canonical()),
        ],
    }
    message = pb.WatchResponse(cursor=7, evaluation=pb.EvaluationRequest(**values | changes))
    event = messages.event(message)
    assert isinstance(event, messages.EvaluationAsked)
    return event


def test_a_request_is_read() -> None:
    request = asked(refine=True, refinement_spec=SPEC.canonical()).read()
    assert (request.evaluation_id, request.merge_id) == ("evl-0001", "mrg-0001")
    assert request.architecture == digits_lab.SPEC
    assert request.task_module == BLOB
    assert request.candidates == {"no_adapter": None, "zero_sample": ADAPTER}
    assert request.refinement_spec == SPEC
    assert asked(refinement_spec=SPEC.canonical()).read().refinement_spec is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"manifest_digest": "A" * 64}, "evaluation request .*: manifest_digest: .*pattern"),
        ({"merge_id": ""}, "evaluation request .*: merge_id"),
        ({"candidates": []}, "evaluation request .*: candidates: .*at least 1"),
        ({"candidates": [pb.Candidate(name="No!")]}, r"evaluation request .*: candidates.No!"),
        ({"architecture": b"{"}, "task module's architecture does not fit"),
        ({"task_module": b"{}"}, "task module's entry does not fit its schema: digest"),
        ({"refine": True}, "refinement's adapter does not fit"),
        (
            {"candidates": [pb.Candidate(name="few_sample", adapter=b"[]")]},
            "candidate's adapter does not fit",
        ),
    ],
)
def test_a_malformed_request_names_the_key(changes: dict[str, Any], says: str) -> None:
    event = asked(**changes)
    assert event.evaluation_id == "evl-0001"  # so that the failure can be reported
    with pytest.raises(SchemaError, match=says):
        event.read()


@pytest.mark.parametrize("names", [["same", "same"], [f"c{place}" for place in range(17)]])
def test_candidates_are_capped_and_each_is_named_once(names: list[str]) -> None:
    with pytest.raises(LimitError, match=f"has {len(names)} candidates; at most 16"):
        asked(candidates=[pb.Candidate(name=name) for name in names]).read()


def test_every_event_of_the_wire_is_known_but_heartbeats() -> None:
    oneof = pb.WatchResponse.DESCRIPTOR.oneofs_by_name["event"]
    for field in oneof.fields:
        message = pb.WatchResponse()
        getattr(message, field.name).SetInParent()
        assert (messages.event(message) is None) == (field.name == "heartbeat"), field.name


def test_an_event_keeps_its_fields() -> None:
    version = pb.NetVersionCommitted(number=3, digest="d" * 64, category="cat", task="depth")
    event = messages.event(pb.WatchResponse(version=version))
    assert event == messages.VersionCommitted(3, "d" * 64, "cat", "depth")
    changed = pb.SubmissionStateChanged(
        submission_id="sub-1", manifest_digest="e" * 64, state="refused", reason="quota"
    )
    event = messages.event(pb.WatchResponse(submission=changed))
    assert event == messages.SubmissionChanged("sub-1", "refused", "quota")


def test_a_malformed_receipt_is_refused() -> None:
    good = pb.Receipt(
        manifest_digest="a" * 64, submission_id="sub-1", received_at="now", signature=b"\1" * 64
    )
    assert messages.receipt(good).signature == "01" * 64
    good.signature = b"short"
    with pytest.raises(SchemaError, match="the receipt does not fit its schema: signature"):
        messages.receipt(good)


def test_a_report_loses_nothing() -> None:
    calibration = CalibratedError(scale=0.1, bias=-1 / 3, error=2.5, mean_iou=60.0)
    report = EvaluationReport(
        evaluation_id="evl-0001",
        results=(
            CandidateError(name="no_adapter", error=12.5, samples=40),
            CandidateError(
                name="few_sample", error=8.0, mean_iou=55.5, samples=40, calibration=calibration
            ),
        ),
        refinement_manifest_digest="f" * 64,
        refined_error=3.0,
        refined_mean_iou=70.0,
        refined_calibration=calibration,
        refinement_seconds=1.5,
        refinement_steps=20,
    )
    sent = messages.report_request(report)
    plain, few = sent.results
    assert not plain.HasField("calibration")
    assert not plain.HasField("mean_iou")
    assert (few.error, few.mean_iou, few.samples) == (8.0, 55.5, 40)
    for told in (few.calibration, sent.refined_calibration):
        assert (told.scale, told.bias, told.error, told.mean_iou) == (0.1, -1 / 3, 2.5, 60.0)
    assert (sent.refined_error, sent.refined_mean_iou) == (3.0, 70.0)
    assert (sent.refinement_manifest_digest, sent.refinement_steps) == ("f" * 64, 20)
    failed = messages.report_request(EvaluationReport(evaluation_id="evl-0002", failure="no task"))
    assert (failed.failure, failed.refinement_manifest_digest) == ("no task", "")
    assert not failed.HasField("refined_calibration")

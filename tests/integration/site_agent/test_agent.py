"""The agent against a real coordinator's server, on real digits."""

from __future__ import annotations

import json
import resource
import shutil
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rootstock.common.errors import (
    ConfigurationError,
    ConflictError,
    DataError,
    IdentityError,
    NotFoundError,
    StorageError,
    UnreachableError,
)
from rootstock.common.identity.credentials import read_credentials
from rootstock.common.identity.keys import load_or_create
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.admission import admit
from rootstock.common.weights.manifest import AdapterEntry, RefinementManifest, TeacherManifest
from rootstock.coordinator.config import IdentityConfig
from rootstock.coordinator.paths import samples_area
from rootstock.coordinator.registry import Receipt, documents
from rootstock.coordinator.service import messages
from rootstock.deploy.client import OperatorClient
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.site_agent.agent import run
from rootstock.site_agent.config import DataConfig, EvaluationConfig, NetworkConfig, TrainingConfig
from rootstock.site_agent.identity import IdentityFiles
from rootstock.site_agent.spool.documents import CandidateError, EvaluationReport
from rootstock.site_agent.spool.spool import Spool
from tests.support.agent_thread import Running, running, site
from tests.support.centre import Centre
from tests.support.coordinator_process import serving
from tests.support.coordinator_server import Running as ServedAgain
from tests.support.identities import write_identity
from tests.support.questions import answered, ask, reported


def test_ships_once_then_evaluates_and_refines(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = site(tmp_path / "lab", centre.address, share_samples=7)
        with running(config) as agent:
            agent.until(lambda: agent.status().get("phase") == "watching")
            (submission,) = centre.registry.submissions.all()
            manifest = TeacherManifest.parse(submission.manifest, what="manifest")
            assert manifest.shared_samples is not None
            samples = centre.store.area(samples_area(submission.id))

            def path_of(digest: str) -> Path:
                shared = manifest.shared_samples
                private = shared is not None and digest == shared.blob.digest
                return (samples if private else centre.store).local_path(digest)

            admit(manifest, centre.plan, path_of)
            assert manifest.shared_samples.count == 7
            (shared,) = (line for line in agent.log() if line["event"] == "samples.shared")
            assert shared["samples"] == 7
            assert not (config.state / "training").exists()
            total = sum(blob.size for blob in manifest.blobs())
            (shipped,) = (line for line in agent.log() if line["event"] == "upload.acknowledged")
            assert shipped["sent_bytes"] == shipped["total_bytes"] == total
            assert agent.status()["shipped"] == shipped["message"] == f"sent {total / 1e3:.1f} KB"

            asked = ask(centre, tmp_path, submission.id, manifest)
            agent.until(lambda: answered(centre, asked))
        assert agent.status()["phase"] == "stopped"

        report = reported(centre, asked)
        assert report.failure == ""
        errors = {result.name: result.error for result in report.results}
        # The lab's own g_T serves as g_S: joined directly, the error is the teacher's.
        assert errors["no_adapter"] == manifest.metrics["error/classification"]
        assert errors["zero_sample"] > 20
        found = {r.name: r.calibration for r in report.results if r.calibration is not None}
        assert 0 < found["zero_sample"].scale < 1e6
        assert found["zero_sample"].error != errors["zero_sample"]
        measured = [line for line in agent.log() if line["event"] == "evaluation.measured"]
        told = {line["name"]: line["calibration"] for line in measured}
        assert told["zero_sample"] == {
            **{key: getattr(found["zero_sample"], key) for key in ("scale", "bias", "error")},
            "mean_iou": None,
        }
        assert report.refined is not None
        assert (told["refined"] is None) == (report.refined.calibration is None)
        assert report.refined.error < errors["zero_sample"]
        upload = centre.registry.uploads.refinement(report.refined.manifest_digest)
        assert upload is not None
        refined = RefinementManifest.parse(upload.manifest, what="manifest")
        admit(refined, centre.plan, centre.store.local_path)

        # A second start trains nothing, ships nothing, and sees no event again.
        with running(config) as again:
            again.until(lambda: again.status().get("phase") == "watching")
            time.sleep(0.5)
        events = [line["event"] for line in again.log()]
        assert events.count("training.reused") == 1
        assert events.count("training.begun") == 1
        assert events.count("evaluation.begun") == 1
        assert len(centre.registry.submissions.all()) == 1


def test_a_lab_may_keep_its_calibrations(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = site(
            tmp_path / "lab",
            centre.address,
            training=TrainingConfig(epochs=1),
            evaluation=EvaluationConfig(calibration=False),
        )
        with running(config) as agent:
            agent.until(lambda: agent.status().get("phase") == "watching")
            (submission,) = centre.registry.submissions.all()
            manifest = TeacherManifest.parse(submission.manifest, what="manifest")
            asked = ask(centre, tmp_path, submission.id, manifest)
            agent.until(lambda: answered(centre, asked))
    report = reported(centre, asked)
    assert len(report.results) == 2
    assert not any(result.calibration for result in report.results)
    assert report.refined is not None
    assert report.refined.calibration is None


def test_an_unknown_teacher_is_reported_not_waited_for(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = site(tmp_path / "lab", centre.address, training=TrainingConfig(epochs=1))
        with running(config) as agent:
            agent.until(lambda: agent.status().get("phase") == "watching")
            (submission,) = centre.registry.submissions.all()
            manifest = TeacherManifest.parse(submission.manifest, what="manifest")
            other = manifest.model_copy(update={"metrics": {"error/classification": 1.0}})
            asked = ask(centre, tmp_path, submission.id, other)
            agent.until(lambda: answered(centre, asked))
            report = reported(centre, asked)
    assert "no teacher with manifest" in report.failure
    assert not report.results


def test_a_malformed_request_is_reported_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = messages.evaluation_request

    def malformed(request: documents.EvaluationRequest) -> pb.EvaluationRequest:
        message = honest(request)
        message.architecture = b"{"
        return message

    monkeypatch.setattr(messages, "evaluation_request", malformed)
    with Centre(tmp_path / "centre") as centre:
        config = site(tmp_path / "lab", centre.address, training=TrainingConfig(epochs=1))
        with running(config) as agent:
            agent.until(lambda: agent.status().get("phase") == "watching")
            (submission,) = centre.registry.submissions.all()
            manifest = TeacherManifest.parse(submission.manifest, what="manifest")
            asked = ask(centre, tmp_path, submission.id, manifest)
            agent.until(lambda: answered(centre, asked))
            report = reported(centre, asked)
    assert "task module's architecture does not fit its schema" in report.failure


def test_without_its_adapter_a_report_still_tells_the_numbers(tmp_path: Path) -> None:
    """The adapter was refused or damaged: the merge must not wait for it for ever."""
    with Centre(tmp_path / "centre") as centre:
        config = site(tmp_path / "lab", centre.address, training=TrainingConfig(epochs=1))
        with running(config) as agent:
            agent.until(lambda: agent.status().get("phase") == "watching")
        (submission,) = centre.registry.submissions.all()
        manifest = TeacherManifest.parse(submission.manifest, what="manifest")
        asked = ask(centre, tmp_path, submission.id, manifest)
        Spool(config.state / "spool", print, centre.key.public_key).add_report(
            EvaluationReport(
                evaluation_id=asked,
                results=tuple(
                    CandidateError(name=name, error=12.5, samples=8)
                    for name in ("no_adapter", "zero_sample")
                ),
                refinement_manifest_digest="a" * 64,
                refined_error=1.0,
            )
        )
        with running(config) as again:
            again.until(lambda: answered(centre, asked))
        report = reported(centre, asked)
    assert [result.error for result in report.results] == [12.5, 12.5]
    assert report.refinement is None


def test_a_refused_report_is_told_as_a_failure(tmp_path: Path) -> None:
    """Its merge must not wait for ever; one whose question is gone stops nobody."""
    with Centre(tmp_path / "centre") as centre:
        config = site(tmp_path / "lab", centre.address, training=TrainingConfig(epochs=1))
        with running(config) as agent:
            agent.until(lambda: agent.status().get("phase") == "watching")
        (submission,) = centre.registry.submissions.all()
        manifest = TeacherManifest.parse(submission.manifest, what="manifest")
        asked = ask(centre, tmp_path, submission.id, manifest)
        result = CandidateError(name="no_adapter", error=12.5, samples=8)
        spool = Spool(config.state / "spool", print, centre.key.public_key)
        for name in ("evl-0000", asked):
            spool.add_report(EvaluationReport(evaluation_id=name, results=(result,)))
        with running(config) as again:
            again.until(lambda: again.status().get("phase") == "watching")
        report = reported(centre, asked)
    assert report.failure.startswith("report refused: SchemaError: report: no result for")
    assert not report.results
    aside = sorted((config.state / "spool" / "aside").glob("*.why.txt"))
    assert ["evl-0000" in aside[0].name, asked in aside[1].name] == [True, True]


def test_waits_for_a_coordinator_that_restarts(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        port = int(centre.address.rpartition(":")[2])
        config = site(tmp_path / "lab", centre.address, training=TrainingConfig(epochs=1))
        agent = Running(config)
        agent.thread.start()
        agent.until(lambda: agent.status().get("phase") == "watching")
    try:
        with Centre(tmp_path / "centre", port) as centre:
            (submission,) = centre.registry.submissions.all()
            manifest = TeacherManifest.parse(submission.manifest, what="manifest")
            asked = ask(centre, tmp_path, submission.id, manifest)
            agent.until(lambda: answered(centre, asked))
            agent.stop.set()
            agent.thread.join(30)
    finally:
        agent.stop.set()
        agent.thread.join(30)
    assert agent.error is None
    assert any(line["event"] == "coordinator.retry_scheduled" for line in agent.log())


def retries(agent: Running, what: str) -> list[dict[str, object]]:
    """Return the log's lines about tries that failed for a reason."""
    if not (agent.config.state / "agent.log").exists():
        return []
    return [
        line
        for line in agent.log()
        if line["event"] == "coordinator.retry_scheduled" and what in str(line["error"])
    ]


def test_a_full_disk_at_the_coordinator_is_waited_for(tmp_path: Path) -> None:
    state = tmp_path / "state"
    # The task module of the plan that this server hands out is larger than its files may grow.
    with ExitStack() as servers:
        _, address = servers.enter_context(serving(state, "700000"))
        config = site(tmp_path / "lab", address, training=TrainingConfig(epochs=1))
        with running(config) as agent:
            full = "File too large; raise the file size limit"
            agent.until(lambda: len(retries(agent, full)) > 1)
            servers.close()
            again = ServedAgain(state, listen=address)
            try:
                agent.until(lambda: agent.status().get("phase") == "watching")
                (submission,) = again.registry.submissions.all()
                assert submission.state == "received"
            finally:
                again.stop()
    assert agent.error is None


def test_a_full_disk_here_ends_the_agent(tmp_path: Path) -> None:
    with serving(tmp_path / "state") as (_, address):
        config = site(tmp_path / "lab", address, training=TrainingConfig(epochs=1))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            with pytest.raises(StorageError, match=r"lab/plan/.*File too large"):
                run(config, threading.Event())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_quota_is_waited_for(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre", max_open_uploads_per_site=1) as centre:
        config = site(tmp_path / "lab", centre.address, training=TrainingConfig(epochs=1))
        key = load_or_create(config.state / "identity" / "site.key")
        centre.registry.sites.join(config.site, key.public_key)
        spec = AdapterSpec(in_channels=8, out_channels=8)
        blob = safetensors_io.write(tmp_path / "adapter", Adapter(spec).state_dict())
        other = RefinementManifest(
            site=config.site, evaluation="evl-0001", adapter=AdapterEntry(spec=spec, blob=blob)
        )
        document = other.canonical()
        opened = centre.registry.uploads.begin(other, document, b"", open_limit=1)
        with running(config) as agent:
            agent.until(lambda: retries(agent, "quota: site 'lab-0' has 1 open uploads"))
            received = Receipt(opened.manifest_digest, opened.id, "2026-01-01T00:00:00Z", b"")
            centre.registry.uploads.receive(opened.id, received)
            agent.until(lambda: agent.status().get("phase") == "watching")
        assert not list((config.state / "spool" / "aside").iterdir())


def test_the_newer_of_two_agents_stays(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = site(tmp_path / "lab", centre.address, training=TrainingConfig(epochs=1))
        with running(config) as older:
            older.until(lambda: older.status().get("phase") == "watching")
            copy = config.model_copy(update={"state": tmp_path / "copy"})
            shutil.copytree(config.state / "identity", copy.state / "identity")
            with running(copy) as newer:
                newer.until(lambda: newer.status().get("phase") == "watching")
                older.thread.join(20)
                assert isinstance(older.error, IdentityError)
                assert "newer one stays" in str(older.error)
                assert newer.thread.is_alive()


def test_a_lab_that_has_not_joined_fails_fast(tmp_path: Path) -> None:
    config = site(tmp_path / "lab", "127.0.0.1:9")
    other = config.model_copy(update={"state": tmp_path / "other"})
    with pytest.raises(NotFoundError, match=r"has not joined.*rootstock site join"):
        run(other, threading.Event())
    failed = json.loads((tmp_path / "other" / "status.json").read_text())
    assert failed["phase"] == "failed"


def test_a_certificate_that_expired_is_no_coordinator_out_of_reach(tmp_path: Path) -> None:
    config = site(tmp_path / "lab", "127.0.0.1:9")
    write_identity(config.state, "lab-0", age=2)
    with pytest.raises(IdentityError, match=r"'lab-0' expired on .*invite lab-0 --again"):
        run(config, threading.Event())


def test_a_certificate_is_renewed_while_the_agent_watches(tmp_path: Path) -> None:
    seconds = 6 / 86_400
    with Centre(tmp_path / "centre", identity=IdentityConfig(client_days=seconds)) as centre:
        config = site(tmp_path / "lab", centre.address, training=TrainingConfig(epochs=1))
        first = read_credentials(IdentityFiles(config.state).credentials).certificate
        with running(config) as agent:
            agent.until(lambda: agent.status().get("phase") == "watching")
            # Past the end of the first certificate, and of the stream that it opened.
            agent.until(
                lambda: datetime.now(UTC) > first.not_valid_after_utc + timedelta(seconds=2)
            )
            centre.registry.events.append(
                documents.MergeChanged(merge_id="mrg-1", state="failed", reason="a test").to(
                    "lab-0"
                )
            )
            agent.until(lambda: "a test" in str(agent.status().get("outcome")))
        assert agent.error is None
        events = [line["event"] for line in agent.log()]
        assert events.count("certificate.renewed") >= 2
        renewed = read_credentials(IdentityFiles(config.state).credentials).certificate
        assert renewed.not_valid_after_utc > first.not_valid_after_utc


def test_a_lab_that_is_turned_away_says_why(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = site(tmp_path / "lab", centre.address, training=TrainingConfig(epochs=1))
        with running(config) as agent:
            agent.until(lambda: agent.status().get("phase") == "watching")
            with OperatorClient(centre.config.state) as operator:
                operator.revoke("lab-0", "stolen laptop")
            agent.thread.join(20)
        assert isinstance(agent.error, IdentityError)
        assert "revoked: stolen laptop" in str(agent.error)


def test_a_name_that_is_not_the_certificates_fails_fast(tmp_path: Path) -> None:
    config = site(tmp_path / "lab", "127.0.0.1:9").model_copy(update={"site": "dog-lab"})
    with pytest.raises(
        ConfigurationError, match="is the certificate of 'lab-0'; set site = \"lab-0\""
    ):
        run(config, threading.Event())


def test_an_empty_share_of_the_data_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = site(
            tmp_path / "lab",
            centre.address,
            data=DataConfig(kind="image-folder", path=tmp_path / "nowhere"),
        )
        with pytest.raises(DataError, match=r"nowhere: is not a folder; set data\.path"):
            run(config, threading.Event())


def test_a_coordinator_that_never_answers_is_given_up(tmp_path: Path) -> None:
    config = site(
        tmp_path / "lab",
        "127.0.0.1:9",
        network=NetworkConfig(patience_seconds=1, retry_cap_seconds=0.2),
    )
    with pytest.raises(UnreachableError, match="has not answered for 1 s"):
        run(config, threading.Event())


def test_two_agents_in_one_folder(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = site(tmp_path / "lab", centre.address, training=TrainingConfig(epochs=1))
        with running(config) as agent:
            agent.until(lambda: agent.status().get("phase") == "watching")
            with pytest.raises(
                ConflictError, match=r"another agent \(process \d+\) runs in this state folder"
            ):
                run(config, threading.Event())


def test_a_coordinator_that_was_set_up_anew_is_another_one(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = site(tmp_path / "lab", centre.address, training=TrainingConfig(epochs=1))
        port = int(centre.address.rpartition(":")[2])
    with Centre(tmp_path / "anew", port):
        with pytest.raises(IdentityError, match=r"set up anew, ask for an invitation"):
            run(config, threading.Event())
        again = site(tmp_path / "other", centre.address, training=TrainingConfig(epochs=1))
        with running(again) as agent:
            agent.until(lambda: agent.status().get("phase") == "watching")

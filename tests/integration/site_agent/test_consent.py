"""A coordinator that draws more from a lab than it should, and a lab that does not let it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rootstock.common.errors import IntegrityError, LimitError
from rootstock.common.identity.keys import SigningKey
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.protocol import evaluation_id
from rootstock.common.transport.download import download
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry, TeacherManifest, TensorEntry
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.registry import MergeState, documents
from rootstock.coordinator.service import messages
from rootstock.deploy.cli.commands import app
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.site_agent.agent import run
from rootstock.site_agent.config import ConsentConfig, EvaluationConfig, SiteConfig, TrainingConfig
from rootstock.site_agent.consent.ledger import read_ledger
from tests.support.agent_thread import Running, running, site
from tests.support.centre import Centre
from tests.support.questions import answered, ask, ask_about, reported


def lab(folder: Path, centre: Centre, **consent: int) -> SiteConfig:
    return site(
        folder / "lab",
        centre.address,
        training=TrainingConfig(epochs=1),
        evaluation=EvaluationConfig(calibration=False),
        consent=ConsentConfig(**consent),
    )


def watching(agent: Running) -> None:
    agent.until(lambda: agent.status().get("phase") == "watching")


def shipped(centre: Centre) -> tuple[str, TeacherManifest]:
    (submission,) = centre.registry.submissions.all()
    return submission.id, TeacherManifest.parse(submission.manifest, what="manifest")


def ask_plainly(centre: Centre, turn: int = 1) -> str:
    submission, manifest = shipped(centre)
    return ask_about(centre, submission, manifest, {Candidate.NO_ADAPTER: None}, turn=turn)


def test_another_key_s_questions_draw_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the coordinator's place on the net, and not its key."""
    honest, stranger = messages.sign_question, SigningKey.generate()
    signers = {"foreign": stranger, "honest": None}
    signing = ["foreign"]

    def sign(message: pb.EvaluationRequest, name: str, expires: int, key: SigningKey) -> None:
        honest(message, name, expires, signers[signing[0]] or key)

    monkeypatch.setattr("rootstock.coordinator.service.watch.sign_question", sign)
    with Centre(tmp_path / "centre") as centre, running(lab(tmp_path, centre)) as agent:
        watching(agent)
        first = ask_plainly(centre)
        agent.until(lambda: answered(centre, first))
        signing[0] = "honest"
        second = ask_plainly(centre, 2)
        agent.until(lambda: answered(centre, second))
        assert "not signed for site 'lab-0'" in reported(centre, first).failure
        assert not reported(centre, first).results
        assert reported(centre, second).failure == ""
        begun = [line for line in agent.log() if line["event"] == "evaluation.begun"]
        assert [line["evaluation"] for line in begun] == [second]


def test_a_module_that_fits_nothing_is_not_fetched(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = lab(tmp_path, centre)
        with running(config) as agent:
            watching(agent)
            submission, manifest = shipped(centre)
            merge = centre.registry.merges.create(
                submission, manifest.category, "classification", OperationKind.NEW_CATEGORY
            )
            tensor = TensorEntry(dtype="F32", shape=(75_000_000,), sha256="a" * 64)
            request = documents.EvaluationRequest(
                evaluation_id=evaluation_id(merge.id),
                merge_id=merge.id,
                manifest_digest=manifest.content_digest(),
                task="classification",
                architecture=manifest.architecture,
                task_module=BlobEntry(
                    digest="b" * 64, size=300_000_100, tensors={"weight": tensor}
                ),
                candidates={Candidate.NO_ADAPTER: None},
            )
            asked = centre.registry.evaluations.request(config.site, request).id
            agent.until(lambda: answered(centre, asked))
            report = reported(centre, asked)
        assert report.failure.startswith("SchemaError: g_S: tensor")
        assert str(config.state) not in report.failure
        assert not list((config.state / "downloads").glob("*"))
        # It would have been NotFoundError had the lab begun: the coordinator has no such blob.


def test_what_is_wrong_with_a_file_is_told_without_its_place(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = lab(tmp_path, centre)
        with running(config) as agent:
            watching(agent)
            submission, manifest = shipped(centre)
            spec = AdapterSpec(in_channels=8, out_channels=8)
            path = tmp_path / "adapter"
            blob = safetensors_io.write(path, Adapter(spec).identity_start().state_dict())
            centre.store.put_file(path, blob.digest)
            tensors = {
                name: tensor.model_copy(update={"sha256": "f" * 64})
                for name, tensor in blob.tensors.items()
            }
            lying = AdapterEntry(spec=spec, blob=blob.model_copy(update={"tensors": tensors}))
            asked = ask_about(centre, submission, manifest, {Candidate.ZERO_SAMPLE: lying})
            agent.until(lambda: answered(centre, asked))
            failure = reported(centre, asked).failure
        (logged,) = (line for line in agent.log() if line["event"] == "evaluation.failed")
    assert str(config.state) in str(logged["error"])
    assert failure.startswith(f"IntegrityError: downloads/{blob.digest}: tensor ")
    assert str(tmp_path) not in failure


def test_a_question_s_file_that_arrives_damaged_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget of bytes has it once; three tries would draw three times as much."""
    tries = []

    def damaging(stub: object, digest: str, path: Path, **named: Any) -> Path:
        if path.parent.name != "downloads":
            return download(stub, digest, path, **named)
        tries.append(digest)
        raise IntegrityError("the bytes do not match their digest")

    monkeypatch.setattr("rootstock.site_agent.wire.client.download", damaging)
    with Centre(tmp_path / "centre") as centre, running(lab(tmp_path, centre)) as agent:
        watching(agent)
        asked = ask_plainly(centre)
        agent.until(lambda: answered(centre, asked))
        assert reported(centre, asked).failure.startswith("IntegrityError: the bytes do not")
    assert len(tries) == 1


def test_a_file_above_the_lab_s_own_cap_is_not_fetched(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = lab(tmp_path, centre, max_blob_bytes=1024)
        with pytest.raises(LimitError, match=r"blob .* has \d+ bytes, the limit is 1024"):
            run(config, threading.Event())
        assert not list((config.state / "plan").glob("*.part"))


def test_what_is_above_the_day_s_budget_waits_and_is_shown(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = lab(tmp_path, centre, numbers=3)
        with running(config) as agent:
            watching(agent)
            first, second = ask_plainly(centre), ask_plainly(centre, 2)
            agent.until(lambda: answered(centre, first))
            agent.until(lambda: agent.status().get("waiting"))
            assert not answered(centre, second)
        with running(config) as again:  # nothing of it is lost
            watching(again)
            again.until(lambda: again.status().get("waiting"))
            shown = str(again.status()["waiting"])
            assert shown.startswith("1 question waits for the day's budget: consent.numbers = 3;")
            assert not answered(centre, second)
        postponed = [line for line in again.log() if line["event"] == "evaluation.postponed"]
        assert {line["evaluation"] for line in postponed} == {second}
        more = config.model_copy(update={"consent": ConsentConfig(numbers=4)})
        with running(more) as with_more:
            with_more.until(lambda: answered(centre, second))
            with_more.until(lambda: not with_more.status()["waiting"])
        assert reported(centre, second).failure == ""


def test_one_that_no_day_has_room_for_is_refused(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        with running(lab(tmp_path, centre, numbers=1)) as agent:
            watching(agent)
            asked = ask_plainly(centre)
            agent.until(lambda: answered(centre, asked))
        report = reported(centre, asked)
        assert "this lab allows consent.numbers = 1 a day" in report.failure
        assert not report.results


def test_the_ledger_holds_every_number_and_file_that_the_coordinator_got(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = lab(tmp_path, centre)
        with running(config) as agent:
            watching(agent)
            submission, manifest = shipped(centre)
            asked = ask(centre, tmp_path, submission, manifest)
            agent.until(lambda: answered(centre, asked))
            report = reported(centre, asked)
        entries = list(read_ledger(config.state))
        teacher = next(entry for entry in entries if entry.what == "manifest")
        assert teacher.numbers == manifest.metrics
        refined = report.refined
        assert refined is not None
        upload = centre.registry.uploads.refinement(refined.manifest_digest)
        assert upload is not None
        blobs = {entry.digest: entry for entry in entries if entry.what == "blob"}
        assert {blob.digest for blob in manifest.blobs()} < blobs.keys()
        (adapter,) = (entry for entry in blobs.values() if entry.name == "adapter")
        assert adapter.subject == refined.manifest_digest
        assert all(blobs[blob.digest].bytes == blob.size for blob in manifest.blobs())
        (told,) = (entry.numbers for entry in entries if entry.what == "report")
        assert told == {
            **{f"{each.name}.error": each.error for each in report.results},
            **{f"{each.name}.samples": each.samples for each in report.results},
            "refined.error": refined.error,
            "refined.seconds": refined.seconds,
            "refined.steps": refined.steps,
        }


def test_a_coordinator_s_words_do_not_reach_a_terminal_as_they_are(tmp_path: Path) -> None:
    reason = "merged\x1b[2J\x1b]0;root\x07 \x9b8m\u202e\n  runs       no"
    with Centre(tmp_path / "centre") as centre:
        config = lab(tmp_path, centre)
        with running(config) as agent:
            watching(agent)
            changed = documents.MergeChanged(
                merge_id="mrg-\x1b[31m", state=MergeState.REJECTED, reason=reason
            )
            submission, manifest = shipped(centre)
            merge = centre.registry.merges.create(
                submission, manifest.category, "classification", OperationKind.NEW_CATEGORY
            )
            centre.registry.merges.advance(
                merge.id,
                MergeState.REJECTED,
                reason="",
                events=[changed.to(config.site)],
            )
            agent.until(lambda: "rejected" in str(agent.status().get("outcome")))
            shown = str(agent.status()["outcome"])
        assert shown.startswith("merge rejected: merged\ufffd[2J")
        assert shown.isprintable()
        for line in (config.state / "agent.log").read_text().splitlines():
            texts = [text for text in json.loads(line).values() if isinstance(text, str)]
            assert all(text.isprintable() for text in texts), texts


def test_the_command_shows_the_ledger_at_80_columns(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = lab(tmp_path, centre)
        with running(config) as agent:
            watching(agent)
            asked = ask_plainly(centre)
            agent.until(lambda: answered(centre, asked))
    file = tmp_path / "site.toml"
    file.write_text(
        f'site = "lab-0"\nstate = "{config.state}"\ncategory = "digit-0"\n[data]\nkind = "digits"\n'
    )
    shown = CliRunner().invoke(app, ["site", "ledger", "-c", str(file)])
    assert shown.exit_code == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert f"report of {asked}" in shown.stdout
    assert "no_adapter.error" in shown.stdout
    assert "category_module" in shown.stdout
    as_json = json.loads(
        CliRunner().invoke(app, ["site", "ledger", "-c", str(file), "--json"]).stdout
    )
    assert [entry["what"] for entry in as_json["entries"]][-1] == "report"
    assert len(as_json["entries"]) == len(list(read_ledger(config.state)))

"""A lab as a witness: it runs another lab's join on its own rest, and one number leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootstock.common.errors import LimitError, SchemaError
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.nets.calibration import Calibration
from rootstock.common.protocol import witness_id
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.registry import documents
from rootstock.coordinator.service.reports import take_report
from rootstock.site_agent.config import EvaluationConfig, TrainingConfig
from rootstock.site_agent.evaluation.rest import rest_of, share_of_yes
from tests.support import digits_lab
from tests.support.agent_thread import Running, running, site
from tests.support.centre import Centre
from tests.support.questions import answered, reported

EVERYTHING = Calibration(scale=1.0, bias=1e6)
NOTHING = Calibration(scale=1.0, bias=-1e6)


def ask(centre: Centre, manifest: TeacherManifest, number: int, calibration: Calibration) -> str:
    """Ask the lab of a manifest about an f that is no module of the net, nor of its own."""
    f, _ = initial_modules(centre.plan.architecture, centre.plan.tasks, seed=7)
    category_module = put_tensors(centre.store, f.state_dict())
    (submission,) = centre.registry.submissions.all()
    merge = centre.registry.merges.create(
        submission.id, f"other-{number}", "classification", OperationKind.NEW_CATEGORY
    )
    request = documents.EvaluationRequest(
        evaluation_id=witness_id(merge.id, 1),
        merge_id=merge.id,
        manifest_digest="ab" * 32,
        task="classification",
        architecture=manifest.architecture,
        task_module=manifest.task_modules["classification"],
        candidates={Candidate.NO_ADAPTER: None},
        rest=documents.RestQuestion(
            category="other",
            category_module=category_module,
            architecture=manifest.architecture,
            calibration=calibration,
        ),
    )
    return centre.registry.evaluations.request(manifest.site, request).id


def shipped(centre: Centre, agent: Running) -> TeacherManifest:
    agent.until(lambda: agent.status().get("phase") == "watching")
    (submission,) = centre.registry.submissions.all()
    return TeacherManifest.parse(submission.manifest, what="manifest")


def test_a_witness_says_how_often_a_join_says_yes_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = site(tmp_path / "lab", centre.address, training=TrainingConfig(epochs=1))
        with running(config) as agent:
            manifest = shipped(centre, agent)
            asked = [
                ask(centre, manifest, number, calibration)
                for number, calibration in enumerate((EVERYTHING, NOTHING))
            ]
            agent.until(lambda: all(answered(centre, each) for each in asked))
        everything, nothing = (reported(centre, each) for each in asked)
        assert everything.failure == nothing.failure == ""
        assert everything.rest is not None
        assert nothing.rest is not None
        assert (everything.rest.yes, nothing.rest.yes) == (100.0, 0.0)
        # Half of the balanced validation images are of the rest; one class of five may be "other".
        rest = manifest.metrics["samples/validation"] / 2
        assert rest / 2 < everything.rest.samples < rest
        assert nothing.rest.samples == rest
        assert everything.results == ()
        assert list((config.state / "downloads").iterdir()) == []
        assert [line["yes"] for line in agent.log() if line["event"] == "evaluation.witnessed"] == [
            100.0,
            0.0,
        ]


def test_a_lab_need_not_be_a_witness(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = site(
            tmp_path / "lab",
            centre.address,
            training=TrainingConfig(epochs=1),
            evaluation=EvaluationConfig(witness=False),
        )
        with running(config) as agent:
            asked = ask(centre, shipped(centre, agent), 0, NOTHING)
            agent.until(lambda: answered(centre, asked))
        report = reported(centre, asked)
        assert report.rest is None
        assert "evaluation.witness = false" in report.failure
        honest = documents.EvaluationReport(
            evaluation_id=ask(centre, shipped_before(centre), 1, NOTHING),
            rest=documents.ReportedRest(yes=3.0, samples=50),
        )
        for lie, error, what in (
            ({"rest": documents.ReportedRest(yes=101.0, samples=50)}, LimitError, "share of yes"),
            ({"rest": documents.ReportedRest(yes=3.0, samples=0)}, LimitError, "samples"),
            ({"rest": None}, SchemaError, "neither the share of yes"),
        ):
            with pytest.raises(error, match=what):
                take_report(centre.registry, config.site, honest.model_copy(update=lie))
        assert take_report(centre.registry, config.site, honest)


def shipped_before(centre: Centre) -> TeacherManifest:
    (submission,) = centre.registry.submissions.all()
    return TeacherManifest.parse(submission.manifest, what="manifest")


def test_images_that_the_witness_knows_to_show_the_category_do_not_count() -> None:
    """One lab's rest is another's category: cats among what a dog lab tells dogs from."""
    images = digits_lab.data(1).validation
    rest = [key for key, label in zip(images.keys, images.labels_N, strict=True) if label == 0]
    classes = {key: "Big Cat" if number < 5 else "cow" for number, key in enumerate(rest)}
    assert len(rest_of(images, classes, "big-cat")) == len(rest) - 5
    assert len(rest_of(images, classes, "dog")) == len(rest)
    assert float(rest_of(images, classes, "dog").labels_N.sum()) == 0.0


def test_a_category_under_another_name_does_not_count_against_a_join() -> None:
    """Nine classes of which one is the category: a perfect net says yes to 11% of them."""
    classes = [str(digit) for digit in range(9) for _ in range(6)]
    perfect = [name == "1" for name in classes]
    assert share_of_yes(perfect, classes, named=False) == (0.0, 48)
    assert share_of_yes([True] * 54, classes, named=False) == (100.0, 48)
    # By its own name it was left out already, and with one class there is nothing to leave out.
    assert share_of_yes(perfect, classes, named=True) == (600 / 54, 54)
    assert share_of_yes([True, False], ["cow", "cow"], named=False) == (50.0, 2)

"""A lab whose images change between two starts of its agent, against a real coordinator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.registry import documents
from rootstock.site_agent.config import DataConfig, SiteConfig, TrainingConfig
from rootstock.site_agent.teacher.data_report import check_data
from tests.support.agent_thread import Running, running, site
from tests.support.centre import Centre
from tests.support.drawn_images import add, cats_and_dogs
from tests.support.questions import answered, ask_about, reported


def lab(state: Path, centre: Centre, images: Path, **changes: Any) -> SiteConfig:
    values: dict[str, Any] = {
        "category": "cat",
        "data": DataConfig(kind="image-folder", path=images),
        "training": TrainingConfig(epochs=2, batch_size=16),
    }
    return site(state, centre.address, **values | changes)


def until_watching(agent: Running) -> dict[str, Any]:
    agent.until(lambda: agent.status().get("phase") == "watching")
    return dict(agent.status())


def evaluated(centre: Centre, agent: Running) -> documents.EvaluationReport:
    """Ask the lab about its own net as it is; return the answer."""
    (submission,) = centre.registry.submissions.all()
    manifest = TeacherManifest.parse(submission.manifest, what="manifest")
    asked = ask_about(centre, submission.id, manifest, {Candidate.NO_ADAPTER: None})
    agent.until(lambda: answered(centre, asked))
    return reported(centre, asked)


def test_a_lab_measures_on_the_images_of_then_and_says_what_changed(tmp_path: Path) -> None:
    images = cats_and_dogs(tmp_path / "images")
    with Centre(tmp_path / "centre") as centre:
        config = lab(tmp_path / "lab", centre, images)
        with running(config) as agent:
            until_watching(agent)
        (submission,) = centre.registry.submissions.all()
        manifest = TeacherManifest.parse(submission.manifest, what="manifest")

        add(images, "cat", range(40, 140))
        with running(config) as agent:
            message = str(until_watching(agent)["message"])
            assert message.endswith("(1 doubt about the images: see `rootstock site check`)")
            found = [line for line in agent.log() if line["event"] == "data.finding"]
            assert "100 images new (cat/" in str(found[-1]["text"])
            (doubt,) = [each for each in check_data(config, 64).findings if each.doubtful]
            assert doubt.text == found[-1]["text"]
            report = evaluated(centre, agent)
        (result,) = report.results
        assert result.error == manifest.metrics["error/classification"]
        assert result.samples == manifest.metrics["samples/validation"]

        # The remedy: another version is trained, on what is there now.
        with running(lab(tmp_path / "lab", centre, images, new_version=True)) as agent:
            until_watching(agent)
            read = [line for line in agent.log() if line["event"] == "data.read"][-1]
            assert read["classes"] == {"cat": 140, "dog": 40}
        assert len(centre.registry.submissions.all()) == 2


def test_an_evaluation_fails_where_too_few_images_remain(tmp_path: Path) -> None:
    images = cats_and_dogs(tmp_path / "images")
    with Centre(tmp_path / "centre") as centre:
        config = lab(tmp_path / "lab", centre, images)
        with running(config) as agent:
            until_watching(agent)
        for path in sorted((images / "cat").iterdir()):
            path.rename(path.with_stem(f"renamed-{path.stem}"))
        with running(config) as agent:
            until_watching(agent)
            report = evaluated(centre, agent)
        texts = [each.text for each in check_data(config, 64).findings]
        assert any("0 of the category" in text for text in texts)
        assert "images that the teacher net was made with, 0 of the category" in report.failure


def test_too_many_shared_samples_are_refused_before_training(tmp_path: Path) -> None:
    images = cats_and_dogs(tmp_path / "images")
    with Centre(tmp_path / "centre") as centre:
        config = lab(tmp_path / "lab", centre, images, share_samples=49)
        with running(config) as agent:
            agent.thread.join(60)
        assert "the lab has 48 training images, 24 of the category and 24" in str(agent.error)
        assert "training.begun" not in [line["event"] for line in agent.log()]
        with running(config.model_copy(update={"share_samples": 48})) as agent:  # the remedy
            until_watching(agent)

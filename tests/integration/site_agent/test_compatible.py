"""Recipe `compatible` against a real coordinator's server: waits, trains, ships, trains again."""

from __future__ import annotations

from pathlib import Path

from rootstock.common.nets.architectures import initial_modules
from rootstock.common.protocol import Heads
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.plan.heads import HeadsFile, publish
from rootstock.site_agent.config import CompatibleConfig, SiteConfig, TrainingConfig
from tests.support.agent_thread import Running, running, site
from tests.support.centre import Centre

TRAINING = TrainingConfig(
    recipe="compatible", epochs=3, compatible=CompatibleConfig(wait_seconds=0.05)
)


def publish_heads(centre: Centre, seed: int) -> Heads:
    modules = initial_modules(centre.plan.architecture, centre.plan.tasks, seed)[1]
    entries = {name: put_tensors(centre.store, g.state_dict()) for name, g in modules.items()}
    file = HeadsFile(centre.config.state / "heads.json")
    return publish(file, centre.registry, f"seed {seed}", entries)


def shipped(centre: Centre) -> list[TeacherManifest]:
    return [
        TeacherManifest.parse(submission.manifest, what="manifest")
        for submission in centre.registry.submissions.all()
    ]


def watching(agent: Running) -> bool:
    return agent.status().get("phase") == "watching"


def logged(agent: Running, event: str) -> bool:
    return any(line["event"] == event for line in agent.log())


def test_it_waits_for_heads_and_keeps_what_it_shipped_when_they_change(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = site(tmp_path / "lab", centre.address, training=TRAINING)
        with running(config) as agent:
            agent.until(lambda: "waits for the plan's aux" in str(agent.status().get("message")))
            assert shipped(centre) == []
            heads = publish_heads(centre, 1)
            agent.until(lambda: watching(agent))
            (manifest,) = shipped(centre)
            assert manifest.heads == heads.content_digest()
            assert manifest.recipe.name == "compatible"
            assert manifest.recipe.settings["compatible.task_weight"] == 1.0
            publish_heads(centre, 2)
            agent.until(lambda: logged(agent, "heads.changed"))
        with running(config) as again:
            again.until(lambda: watching(again) and logged(again, "training.reused"))
            assert shipped(centre) == [manifest]


def test_heads_that_are_replaced_during_training_make_it_train_again(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        first = publish_heads(centre, 1)
        config = site(tmp_path / "lab", centre.address, training=TRAINING)
        with running(config) as agent:
            agent.until(lambda: agent.status().get("phase") == "training")
            second = publish_heads(centre, 2)
            agent.until(lambda: watching(agent))
            (manifest,) = shipped(centre)
            assert manifest.heads == second.content_digest() != first.content_digest()
            assert logged(agent, "training.heads_replaced")


def test_nothing_in_common_ends_the_agent_with_the_remedy(tmp_path: Path) -> None:
    only_turns = CompatibleConfig(task_weight=0, wait_seconds=0.05)
    training = TRAINING.model_copy(update={"compatible": only_turns})
    with Centre(tmp_path / "centre") as centre:
        publish_heads(centre, 1)
        config: SiteConfig = site(tmp_path / "lab", centre.address, training=training)
        agent = Running(config)
        agent.thread.start()
        agent.thread.join(60)
        assert agent.error is not None
        assert "nothing is in common. Raise a weight, or set recipe" in str(agent.error)

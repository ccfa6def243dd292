"""A lab that leaves a coordinator for another one, and goes back: two real coordinators."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rootstock.common.errors import ConflictError, IdentityError
from rootstock.common.identity.keys import fingerprint
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.provenance.signed_log import LoggedReceipt, SignedLog
from rootstock.coordinator.registry.records import Submission
from rootstock.deploy.cli.commands import app
from rootstock.site_agent.agent import run
from rootstock.site_agent.config import SiteConfig, TrainingConfig
from rootstock.site_agent.coordinator_log import CoordinatorLog
from tests.support.agent_thread import Running, running, site
from tests.support.centre import Centre
from tests.support.identities import join_coordinator
from tests.support.questions import answered, ask, reported


def lab(folder: Path, centre: Centre) -> SiteConfig:
    return site(folder / "lab", centre.address, training=TrainingConfig(epochs=1))


def until_watching(agent: Running) -> None:
    agent.until(lambda: agent.status().get("phase") == "watching")


def visit(config: SiteConfig, then: Callable[[Running], object] = until_watching) -> list[str]:
    """Run the lab's agent until it watches, and longer if asked to; return its events' names."""
    log = config.state / "agent.log"
    before = len(log.read_text().splitlines()) if log.exists() else 0
    with running(config) as agent:
        until_watching(agent)
        then(agent)
    return [str(line["event"]) for line in agent.log()[before:]]


def leave_for(config: SiteConfig) -> None:
    """Join the coordinator of the configuration: it is not the one that the lab has joined."""
    with pytest.raises(IdentityError, match="what answers there is not the coordinator"):
        run(config, threading.Event())
    with pytest.raises(ConflictError, match=r"remove .*tls\.pem and join again") as raised:
        join_coordinator(config.coordinator, config.site, config.state)
    Path(str(raised.value).split("remove ")[1].split(" and ")[0]).unlink()
    join_coordinator(config.coordinator, config.site, config.state)


def teacher_at(centre: Centre) -> tuple[Submission, TeacherManifest]:
    (submission,) = centre.registry.submissions.all()
    return submission, TeacherManifest.parse(submission.manifest, what="manifest")


def question(centre: Centre, folder: Path) -> tuple[str, Callable[[Running], object]]:
    """Ask the lab; return the evaluation's id, and what waits for the answer."""
    submission, manifest = teacher_at(centre)
    asked = ask(centre, folder, submission.id, manifest)
    return asked, lambda agent: agent.until(lambda: answered(centre, asked))


@pytest.mark.parametrize("seed", [0, 1], ids=["the same plan", "another plan"])
def test_a_lab_ships_to_another_coordinator_and_goes_back(tmp_path: Path, seed: int) -> None:
    with (
        Centre(tmp_path / "first") as first,
        Centre(tmp_path / "second", seed=seed) as second,
    ):
        visit(lab(tmp_path, first))
        asked, answer = question(first, tmp_path)
        assert "evaluation.begun" in visit(lab(tmp_path, first), answer)

        there = lab(tmp_path, second)
        leave_for(there)
        events = visit(there)
        one, other = teacher_at(first)[1], teacher_at(second)[1]
        assert (one == other) == (seed == 0)
        assert ("training.begun" in events) == ("plan.differs" in events) == (seed == 1)
        assert "upload.acknowledged" in events

        # Both number their questions from one: the answer to the first's is none to the second's.
        again, answer = question(second, tmp_path)
        assert again == asked
        events = visit(there, answer)
        assert "evaluation.begun" in events
        assert "evaluation.recalled" not in events
        assert reported(second, again).failure == ""
        refined = reported(second, again).refined
        assert refined is not None
        assert second.registry.uploads.refinement(refined.manifest_digest) is not None

        leave_for(lab(tmp_path, first))
        events = visit(lab(tmp_path, first))
        assert not {"training.begun", "upload.begun", "evaluation.begun"} & set(events)
        assert len(first.registry.submissions.all()) == len(second.registry.submissions.all()) == 1


def age(state: Path, centre: Centre) -> None:
    """Make of a state folder what an earlier version would have left."""
    name = fingerprint(centre.key.public_key)
    spool = state / "spool"
    for path in sorted(spool.glob(f"*/*/*.{name}*")):
        path.rename(path.with_name(path.name.replace(f".{name}", "")))
    for path in sorted(spool.glob("*/*/coordinator")):
        path.unlink()
    for kind in ("reports", "reported"):
        for path in sorted((spool / kind / name).glob("*.json")):
            path.rename(spool / kind / path.name)
        (spool / kind / name).rmdir()
    (state / "cursors" / f"{name}.json").rename(state / "cursor.json")
    (state / "cursors").rmdir()


@pytest.mark.parametrize("other_first", [False, True], ids=["at once", "after another one"])
def test_a_state_folder_of_an_earlier_version_is_its_coordinator_s(
    tmp_path: Path, *, other_first: bool
) -> None:
    with Centre(tmp_path / "first") as first, Centre(tmp_path / "second") as second:
        config = lab(tmp_path, first)
        visit(config)
        asked, answer = question(first, tmp_path)
        visit(config, answer)
        adopted = config.state / "cursors" / f"{fingerprint(first.key.public_key)}.json"
        cursor = adopted.read_text()
        sent = first.registry.submissions.all()
        age(config.state, first)
        assert (config.state / "cursor.json").exists()
        if other_first:
            leave_for(lab(tmp_path, second))
            assert "upload.acknowledged" in visit(lab(tmp_path, second))
            assert "evaluation.begun" in visit(lab(tmp_path, second), question(second, tmp_path)[1])
            leave_for(config)
        events = visit(config)
        assert not {"training.begun", "upload.begun", "evaluation.begun"} & set(events)
        assert adopted.read_text() == cursor
        assert first.registry.submissions.all() == sent
        assert (config.state / "spool" / "reported" / adopted.stem / f"{asked}.json").exists()


def test_what_a_coordinator_has_lost_is_shipped_again(tmp_path: Path) -> None:
    """It was put back from a backup of before: its own receipt proves nothing.

    Its log is shorter than what it had signed; the lab's operator hears of that first.
    """
    with Centre(tmp_path / "centre") as centre:
        port = int(centre.address.rpartition(":")[2])
        config = lab(tmp_path, centre)
    shutil.copytree(tmp_path / "centre", tmp_path / "backup")
    with Centre(tmp_path / "centre", port) as centre:
        visit(config)
        manifest = teacher_at(centre)[1]
    shutil.rmtree(tmp_path / "centre")
    (tmp_path / "backup").rename(tmp_path / "centre")
    with Centre(tmp_path / "centre", port) as centre:
        for _ in range(2):
            with pytest.raises(IdentityError, match=r"has rewritten its history.*accept-log"):
                run(config, threading.Event())
        assert centre.registry.submissions.all() == []
        assert status(tmp_path, config)["log"]["rewrites"][0]["ended"] == ""
        CoordinatorLog(config.state, centre.key.public_key).accept()
        events = visit(config)
        assert teacher_at(centre)[1] == manifest
    assert "upload.lost" in events
    assert "training.begun" not in events
    (rewrite,) = status(tmp_path, config)["log"]["rewrites"]
    assert rewrite["ended"] == "accepted"
    assert rewrite["known"]["size"] > rewrite["found"]["size"]


def status(folder: Path, config: SiteConfig) -> dict[str, Any]:
    """Return what `site status --json` says."""
    file = folder / "site.toml"
    values = {"site": config.site, "category": config.category, "state": str(config.state)}
    lines = [f'{name} = "{value}"' for name, value in values.items()]
    lines += [f'coordinator = "{config.coordinator}"', "[data]", 'kind = "digits"']
    file.write_text("\n".join(lines))
    answer = CliRunner().invoke(app, ["site", "status", "--config", str(file), "--json"])
    assert answer.exit_code == 0, answer.output
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def test_an_agent_that_runs_notices_that_the_log_was_cut(tmp_path: Path) -> None:
    """The coordinator is put back while the agent watches: it hears of it when it is back."""
    with Centre(tmp_path / "centre") as centre:
        port = int(centre.address.rpartition(":")[2])
        config = lab(tmp_path, centre)
    shutil.copytree(tmp_path / "centre", tmp_path / "backup")
    agent = Running(config)
    try:
        with Centre(tmp_path / "centre", port):
            agent.thread.start()
            until_watching(agent)
        with Centre(tmp_path / "centre", port):  # another start is none of the lab's business
            agent.until(lambda: "watch.reopened" in {line["event"] for line in agent.log()})
        shutil.rmtree(tmp_path / "centre")
        (tmp_path / "backup").rename(tmp_path / "centre")
        with Centre(tmp_path / "centre", port):
            agent.thread.join(30)
            assert isinstance(agent.error, IdentityError)
            assert "has rewritten its history" in str(agent.error)
    finally:
        agent.stop.set()
        agent.thread.join(30)


def test_an_agent_that_runs_notices_another_coordinator_at_the_address(tmp_path: Path) -> None:
    with Centre(tmp_path / "first") as first:
        port = int(first.address.rpartition(":")[2])
        config = lab(tmp_path, first)
        agent = Running(config)
        agent.thread.start()
        until_watching(agent)
    try:
        with Centre(tmp_path / "second", port):
            agent.thread.join(30)
            assert isinstance(agent.error, IdentityError)
            assert "what answers there is not the coordinator" in str(agent.error)
    finally:
        agent.stop.set()
        agent.thread.join(30)


def test_a_receipt_that_is_in_no_log_is_never_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = SignedLog.receipt

    def elsewhere(log: SignedLog, upload_id: str) -> LoggedReceipt:
        return honest(log, upload_id)._replace(proof=[bytes(32)])

    with Centre(tmp_path / "centre") as centre:
        config = lab(tmp_path, centre)
        with monkeypatch.context() as patch:
            patch.setattr(SignedLog, "receipt", elsewhere)
            for _ in range(2):  # whoever starts next looks at it, too
                with running(config) as agent:
                    agent.thread.join(60)
                assert isinstance(agent.error, IdentityError)
                events = [line["event"] for line in agent.log()]
                assert "log.not_followed" in events
                assert "upload.acknowledged" not in events
        assert "upload.acknowledged" in visit(config)

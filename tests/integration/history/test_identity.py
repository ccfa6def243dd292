"""Whose an experiment and a model are, in a real MLflow that several coordinators share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from rootstock.common.errors import ConflictError
from rootstock.coordinator.history.namespace import Namespace
from tests.support.histories import COORDINATOR, history_at
from tests.support.merge_records import record

FORMER = "fedcba9876543210"


def grow(uri: str, net: str, coordinator: str = COORDINATOR) -> Namespace:
    """Log two merges as a coordinator does; both coordinators number theirs alike."""
    history = history_at(uri, net, coordinator)
    namespace = history.connect()
    first, second = record(["zero"], net=net), record(["zero", "one"], net=net)
    for merge in (first, second):
        history.log_merge(merge)
    history.show_head(second.digest, first.digest)
    return namespace


def shown(client: MlflowClient, name: str) -> dict[str, Any]:
    """Return all that MLflow holds under a name, experiments in the bin included."""
    found: dict[str, Any] = {}
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
        found["experiment"] = dict(experiment)
        found["runs"] = {
            run.info.run_id: (run.data.tags, run.data.params, run.info.lifecycle_stage)
            for run in runs
        }
    try:
        model = client.get_registered_model(name)
    except MlflowException:
        return found
    versions = client.search_model_versions(f"name = '{name}'")
    found["model"] = (model.tags, model.aliases, model.description)
    found["versions"] = {each.version: (each.tags, each.description) for each in versions}
    return found


def somebody_s_experiment(client: MlflowClient, name: str) -> None:
    client.create_experiment(name, tags={"mlflow.note.content": "my own work"})


def somebody_s_deleted_experiment(client: MlflowClient, name: str) -> None:
    client.delete_experiment(client.create_experiment(name))


def somebody_s_model(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name, tags={"mine": "yes"}, description="my own model")
    run = client.create_run("0")
    source = f"{run.info.artifact_uri}/model"
    version = client.create_model_version(name, source, run.info.run_id)
    client.set_registered_model_alias(name, "current", version.version)
    client.set_registered_model_alias(name, "previous", version.version)


def an_earlier_version_s(client: MlflowClient, name: str) -> None:
    """Without the tag it may be any coordinator's."""
    experiment = client.create_experiment(name)
    client.create_run(experiment, tags={"rootstock.merge_id": "m0"})
    client.create_registered_model(name)


def another_coordinator_s(client: MlflowClient, name: str) -> None:
    grow(client.tracking_uri, name, FORMER)


def another_coordinator_s_deleted(client: MlflowClient, name: str) -> None:
    namespace = grow(client.tracking_uri, name, FORMER)
    client.delete_experiment(namespace.experiment_id)


OTHERS: list[Callable[[MlflowClient, str], None]] = [
    somebody_s_experiment,
    somebody_s_deleted_experiment,
    somebody_s_model,
    an_earlier_version_s,
    another_coordinator_s,
    another_coordinator_s_deleted,
]


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: other.__name__)
def test_what_is_another_s_is_left_alone(
    uri: str, client: MlflowClient, other: Callable[[MlflowClient, str], None]
) -> None:
    net = other.__name__.replace("_", "-")
    other(client, net)
    before = shown(client, net)
    namespace = grow(uri, net)
    history = history_at(uri, net)
    history.show_head(None, None)  # as `history rebuild` does with a net of no version
    merge = record(["zero", "one"], net=net)
    what, _ = history.restore(merge)
    history.show_head(merge.digest, merge.parent_digest)
    assert what == "unchanged"
    assert shown(client, net) == before

    assert namespace.name == f"{net}-{COORDINATOR[:8]}"
    own = shown(client, namespace.name)
    assert {tags["rootstock.coordinator"] for tags, _, _ in own["runs"].values()} == {COORDINATOR}
    assert {tags["rootstock.merge_id"] for tags, _, _ in own["runs"].values()} == {"m0", "m1"}
    assert own["model"][1] == {"current": "2", "previous": "1"}
    assert own["experiment"]["tags"]["rootstock.coordinator"] == COORDINATOR


def test_both_nets_of_one_name_stay_right(uri: str, client: MlflowClient) -> None:
    first = grow(uri, "shared", FORMER)
    second = grow(uri, "shared")
    assert (first.name, second.name) == ("shared", f"shared-{COORDINATOR[:8]}")
    before = shown(client, "shared"), shown(client, second.name)
    for coordinator, namespace in ((FORMER, first), (COORDINATOR, second)):
        assert grow(uri, "shared", coordinator) == namespace
    assert (shown(client, "shared"), shown(client, second.name)) == before


def test_a_net_that_has_branched_off_stays_there(uri: str, client: MlflowClient) -> None:
    somebody_s_experiment(client, "left")
    branched = grow(uri, "left")
    theirs = client.get_experiment_by_name("left")
    assert theirs is not None
    client.rename_experiment(theirs.experiment_id, "left for good")
    assert grow(uri, "left") == branched


def test_no_name_is_left(uri: str, client: MlflowClient) -> None:
    branch = f"full-{COORDINATOR[:8]}"
    for name in ("full", branch):
        somebody_s_experiment(client, name)
    with pytest.raises(ConflictError, match=f"rename '{branch}' there") as raised:
        history_at(uri, "full").connect()
    assert f"'full' and '{branch}' are both another's" in str(raised.value)
    # As the message says.
    theirs = client.get_experiment_by_name(branch)
    assert theirs is not None
    client.rename_experiment(theirs.experiment_id, "theirs")
    assert history_at(uri, "full").connect().name == branch


def test_what_an_operator_wrote_on_the_own_experiment_stays(uri: str, client: MlflowClient) -> None:
    namespace = grow(uri, "noted")
    client.set_experiment_tag(namespace.experiment_id, "mlflow.note.content", "see the wiki")
    client.set_registered_model_alias("noted", "champion", "1")
    client.update_registered_model("noted", "our pride")
    grow(uri, "noted")
    own = shown(client, "noted")
    assert own["experiment"]["tags"]["mlflow.note.content"] == "see the wiki"
    assert own["model"][1:] == (
        {"champion": "1", "current": "2", "previous": "1"},
        "our pride",
    )


def test_of_two_that_begin_at_the_same_moment_one_branches_off(uri: str) -> None:
    for attempt in range(5):
        start = threading.Barrier(2)
        found: dict[str, Namespace] = {}

        def connect(coordinator: str, net: str, start: threading.Barrier = start) -> None:
            history = history_at(uri, net, coordinator)
            start.wait()
            found[coordinator] = history.namespace()  # noqa: B023  # joined below

        net = f"race-{attempt}"
        threads = [
            threading.Thread(target=connect, args=(each, net)) for each in (COORDINATOR, FORMER)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        names = {namespace.name for namespace in found.values()}
        branches = {f"{net}-{each[:8]}" for each in (COORDINATOR, FORMER)}
        assert len(names) == 2
        assert names & branches
        for coordinator, namespace in found.items():
            assert history_at(uri, net, coordinator).namespace() == namespace

"""The experiment and the registered model of a net: whose they are says a tag, not their name.

Names in MLflow are anybody's: another coordinator may grow a net of the same name there, or
somebody may have work of his own under it. A net's identity is its coordinator's signing key.
"""

from __future__ import annotations

from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode

from rootstock.common.errors import ConflictError
from rootstock.coordinator.history.content import COORDINATOR, EXPERIMENT, NET

BRANCH_DIGITS = 8
"""Of the key's fingerprint, in the name of what branches off."""


class Namespace(NamedTuple):
    """Where MLflow shows a net."""

    name: str
    """Of the experiment and of the registered model alike."""
    experiment_id: str


def claim(client: MlflowClient, net: str, coordinator: str) -> Namespace:
    """Return the net's experiment and model; make them, or restore what is in MLflow's bin.

    They have the net's name, unless something of that name is another's: then both are
    `NET-<first 8 of the fingerprint>`, from then on. Of two coordinators that make one at the same
    moment, the loser branches off. ConflictError if that name is another's, too.
    """
    branch = f"{net}-{coordinator[:BRANCH_DIGITS]}"
    branched = _is_ours(_experiment(client, branch), coordinator)
    for name in (branch,) if branched else (net, branch):
        namespace = _claim(client, name, coordinator)
        if namespace is not None:
            return namespace
    raise ConflictError(
        f"experiments or models '{net}' and '{branch}' are both another's than this coordinator's "
        f"({coordinator}); rename '{branch}' there, or set history.mlflow_uri to another server"
    )


def _claim(client: MlflowClient, name: str, coordinator: str) -> Namespace | None:
    """Return the experiment and model of a name; None if either is another's."""
    experiment, model = _experiment(client, name), _model(client, name)
    for known in (experiment, model):
        if known is not None and not _is_ours(known, coordinator):
            return None
    if experiment is None:
        experiment = _made_experiment(client, name, coordinator)
    elif experiment.lifecycle_stage == LifecycleStage.DELETED:
        client.restore_experiment(experiment.experiment_id)
    if model is None:
        model = _made_model(client, name, coordinator)
    if not (_is_ours(experiment, coordinator) and _is_ours(model, coordinator)):
        return None
    return Namespace(name, str(experiment.experiment_id))


def _is_ours(known: Experiment | RegisteredModel | None, coordinator: str) -> bool:
    return known is not None and known.tags.get(COORDINATOR) == coordinator


def _experiment(client: MlflowClient, name: str) -> Experiment | None:
    found = client.get_experiment_by_name(name)  # one in the bin, too
    if found is not None and found.name != name:
        raise MlflowException(f"it answers with experiment '{found.name}' for '{name}'")
    return found


def _made_experiment(client: MlflowClient, name: str, coordinator: str) -> Experiment:
    tags = {
        COORDINATOR: coordinator,
        "mlflow.experimentKind": "custom_model_development",  # else pages of chats come first
        "mlflow.note.content": EXPERIMENT,
    }
    try:
        client.create_experiment(name, tags=tags)
    except MlflowException as error:
        _require(error, RESOURCE_ALREADY_EXISTS)  # another was faster, or our first try arrived
    made = _experiment(client, name)
    if made is None:
        raise ConflictError(f"experiment '{name}' went away while it was made; it is made again")
    return made


def _model(client: MlflowClient, name: str) -> RegisteredModel | None:
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        _require(error, RESOURCE_DOES_NOT_EXIST)
        return None


def _made_model(client: MlflowClient, name: str, coordinator: str) -> RegisteredModel:
    try:
        client.create_registered_model(name, tags={COORDINATOR: coordinator}, description=NET)
    except MlflowException as error:
        _require(error, RESOURCE_ALREADY_EXISTS)
    return client.get_registered_model(name)


def _require(error: MlflowException, code: ErrorCode.ValueType) -> None:
    """Raise an error again that has another code."""
    if error.error_code != ErrorCode.Name(code):
        raise error

"""``rootstock coordinator``: for the coordinator's operator."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, get_args

import typer

from rootstock.deploy.cli.coordinator import heads
from rootstock.deploy.cli.coordinator.gc import gc
from rootstock.deploy.cli.extras import needs_coordinator
from rootstock.deploy.output import PEOPLE, RESULT, print_json

app = typer.Typer(help="Run and watch a coordinator.", no_args_is_help=True)

Config = Annotated[Path, typer.Option("--config", "-c", help="coordinator.toml")]
history = typer.Typer(help="Merges as MLflow shows them.", no_args_is_help=True)
app.add_typer(history, name="history")
app.add_typer(heads.app, name="heads")
app.command()(gc)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def run(config: Config) -> None:
    """Serve labs, transplant what they ship, and log every merge, until SIGTERM or Ctrl-C."""
    with needs_coordinator("coordinator run"):
        from rootstock.coordinator.app import run_coordinator
        from rootstock.coordinator.config import CoordinatorConfig
    from rootstock.common.config import load

    run_coordinator(load(config, CoordinatorConfig))


@app.command()
def status(config: Config, as_json: AsJson = False) -> None:
    """Show sites, submissions and merges of a running coordinator."""
    with needs_coordinator("coordinator status"):
        from rootstock.coordinator.config import CoordinatorConfig
        from rootstock.deploy.client import OperatorClient
    from rootstock.common.config import load
    from rootstock.deploy.federation.tables import status_tables

    with OperatorClient.of_state(load(config, CoordinatorConfig).state) as operator:
        answer = operator.status()
    if as_json:
        from google.protobuf.json_format import MessageToDict

        print_json(MessageToDict(answer, preserving_proto_field_name=True))
        return
    for table in status_tables(answer):
        RESULT.print(table)


Reason = Annotated[str, typer.Option("--reason", help="Kept in the history, for people.")]
MergeId = Annotated[str, typer.Argument(help="As `coordinator status` lists it: mrg-0001")]


@app.command()
def approve(merge: MergeId, config: Config, reason: Reason) -> None:
    """Merge what waits for a review, whatever the acceptance policy says."""
    _decide(config, merge, approve=True, reason=reason)


@app.command()
def reject(merge: MergeId, config: Config, reason: Reason) -> None:
    """End a merge that is still open without a new net version."""
    _decide(config, merge, approve=False, reason=reason)


def _decide(config: Path, merge: str, *, approve: bool, reason: str) -> None:
    with needs_coordinator("coordinator approve" if approve else "coordinator reject"):
        from rootstock.coordinator.config import CoordinatorConfig
        from rootstock.deploy.client import OperatorClient
    from rootstock.common.config import load

    with OperatorClient.of_state(load(config, CoordinatorConfig).state) as operator:
        state = operator.decide(merge, approve=approve, reason=reason)
    word = "approved" if approve else "rejected"
    print_json({"merge": merge, "decision": word, "state": state})


@app.command("forget-samples")
def forget_samples(
    submission: Annotated[str, typer.Argument(help="As `coordinator status` lists it: sub-0001")],
    config: Config,
) -> None:
    """Delete the images that a lab shared with a submission, and tell the lab."""
    with needs_coordinator("coordinator forget-samples"):
        from rootstock.coordinator.config import CoordinatorConfig
        from rootstock.deploy.client import OperatorClient
    from rootstock.common.config import load

    with OperatorClient.of_state(load(config, CoordinatorConfig).state) as operator:
        count = operator.forget_samples(submission)
    print_json({"submission": submission, "forgotten": count})


@app.command()
def ui(
    state: Annotated[
        Path, typer.Argument(help="Folder of a federation, as `demo` and `up` print.")
    ],
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 5000,
) -> None:
    """Show a federation's merge history in MLflow's UI until Ctrl-C."""
    with needs_coordinator("coordinator ui"):
        from rootstock.deploy.federation.history_ui import serve_history

    serve_history(state, port)


@history.command()
def rebuild(
    config: Config,
    mlflow_uri: Annotated[
        str | None, typer.Option(help="Another MLflow server than history.mlflow_uri.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show every merge in MLflow again, from the ledger; what is whole there stays as it is."""
    with needs_coordinator("coordinator history rebuild"):
        from rootstock.coordinator.config import CoordinatorConfig
        from rootstock.coordinator.history.rebuild import Restored
        from rootstock.coordinator.history.rebuild import rebuild as rebuild_history
    from rootstock.common.config import load
    from rootstock.deploy.federation.tables import restored_table

    settings = load(config, CoordinatorConfig)
    if mlflow_uri is not None:
        there = settings.history.model_copy(update={"mlflow_uri": mlflow_uri})
        settings = settings.model_copy(update={"history": there})
    merges = rebuild_history(settings, lambda merge: PEOPLE.print(f"{merge.merge_id} {merge.what}"))
    done = Counter(merge.what for merge in merges)
    counts = {what: done[what] for what in get_args(Restored)}
    uri = settings.history.mlflow_uri
    if as_json:
        rows = [merge.model_dump() for merge in merges]
        print_json({"mlflow_uri": uri, **counts, "merges": rows})
        return
    RESULT.print(restored_table(merges))
    told = ", ".join(f"{count} {what}" for what, count in counts.items())
    RESULT.print(f"{len(merges)} merges at {uri}: {told}", soft_wrap=True)

"""``rootstock coordinator``: for the coordinator's operator."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, get_args

import typer
from google.protobuf.json_format import MessageToDict

from rootstock.common.config import check, load
from rootstock.common.documents import Document
from rootstock.coordinator.config import CoordinatorConfig, HistoryConfig
from rootstock.deploy.cli.access import operations, running
from rootstock.deploy.cli.coordinator import heads, members
from rootstock.deploy.cli.coordinator.splits import splits
from rootstock.deploy.cli.coordinator.tables import history_line, restored_table, status_tables
from rootstock.deploy.cli.extras import CoordinatorGroup
from rootstock.deploy.cli.options import AsJson, Config, Reason
from rootstock.deploy.output import PEOPLE, note, print_json, print_result

app = typer.Typer(help="Run and watch a coordinator.", no_args_is_help=True, cls=CoordinatorGroup)
history = typer.Typer(
    help="Merges as MLflow shows them.", no_args_is_help=True, cls=CoordinatorGroup
)
app.add_typer(history, name="history")
app.add_typer(heads.app, name="heads")
app.command()(splits)

MergeId = Annotated[str, typer.Argument(help="As `coordinator status` lists it: mrg-0001")]


@app.command()
def run(config: Config) -> None:
    """Serve labs, transplant what they ship, and log every merge, until SIGTERM or Ctrl-C."""
    from rootstock.coordinator.app import run_coordinator

    run_coordinator(load(config, CoordinatorConfig))


@app.command()
def status(config: Config, as_json: AsJson = False) -> None:
    """Show sites, submissions and merges of a running coordinator."""
    with running(config) as operator:
        answer = operator.status()
    value = MessageToDict(answer, preserving_proto_field_name=True)
    print_result(value, *status_tables(answer), history_line(answer), as_json=as_json)


@app.command()
def approve(merge: MergeId, config: Config, reason: Reason) -> None:
    """Merge what waits for a review, whatever the acceptance policy says."""
    _decide(merge, config, reason, approve=True)


@app.command()
def reject(merge: MergeId, config: Config, reason: Reason) -> None:
    """End a merge that is still open without a new net version."""
    _decide(merge, config, reason, approve=False)


def _decide(merge: str, config: Path, reason: str, *, approve: bool) -> None:
    with running(config) as operator:
        state = operator.decide(merge, approve=approve, reason=reason)
    decision = "approved" if approve else "rejected"
    print_json({"merge": merge, "decision": decision, "state": state})


@app.command("forget-samples")
def forget_samples(
    submission: Annotated[str, typer.Argument(help="As `coordinator status` lists it: sub-0001")],
    config: Config,
) -> None:
    """Delete the images that a lab shared with a submission, and tell the lab."""
    with running(config) as operator:
        count = operator.forget_samples(submission)
    print_json({"submission": submission, "forgotten": count})


@app.command()
def gc(
    config: Config,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be deleted.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete the blobs that no net version, submission or open merge needs.

    A coordinator that runs does so itself, now and then (table garbage of coordinator.toml). A blob
    stays for garbage.grace_seconds after it was stored last, whatever refers to it.
    """
    from rootstock.coordinator.garbage.collector import collect_garbage
    from rootstock.coordinator.merges.pending import published_plan
    from rootstock.coordinator.net.reader import NetReader
    from rootstock.coordinator.paths import StatePaths
    from rootstock.coordinator.plan.heads import HeadsFile

    settings = load(config, CoordinatorConfig)
    if dry_run:
        with NetReader.open(settings) as net:
            garbage = collect_garbage(
                net.registry,
                net.store,
                published_plan(settings),
                HeadsFile(StatePaths(settings).heads).current(),
                grace_seconds=settings.garbage.grace_seconds,
                dry_run=True,
            )
    else:
        with operations(settings) as (operator, _):
            garbage = operator.collect_garbage()
    rows = {**garbage.kept, "to delete" if dry_run else "deleted": garbage.deleted}
    print_result(
        {"dry_run": dry_run, **garbage.model_dump(mode="json")},
        *(
            f"{name:<12} {count.blobs:>8} blobs  {count.bytes / 1e6:>10.1f} MB"
            for name, count in rows.items()
        ),
        as_json=as_json,
    )


@app.command()
def ui(
    state: Annotated[
        Path, typer.Argument(help="Folder of a federation, as `demo` and `up` print.")
    ],
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 5000,
) -> None:
    """Show a federation's merge history in MLflow's UI until Ctrl-C."""
    from rootstock.deploy.federation.run import serve_history

    serve_history(state, port)


@history.command()
def rebuild(
    config: Config,
    mlflow_uri: Annotated[
        str | None, typer.Option(help="Another MLflow server than history.mlflow_uri.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show every merge in MLflow again, from the registry; complete runs stay as they are."""
    from rootstock.coordinator.history.rebuild import Restored
    from rootstock.coordinator.history.rebuild import rebuild as rebuild_history

    settings = load(config, CoordinatorConfig)
    if mlflow_uri is not None:
        there = settings.history.model_dump() | {"mlflow_uri": mlflow_uri}
        checked = check({"history": there}, _HistoryOption, source="--mlflow-uri")
        settings = settings.model_copy(update={"history": checked.history})
    done = rebuild_history(settings, lambda merge: PEOPLE.print(f"{merge.merge_id} {merge.what}"))
    found = Counter(merge.what for merge in done.merges)
    counts = {what: found[what] for what in get_args(Restored)}
    uri = settings.history.address
    summary = ", ".join(f"{count} {what}" for what, count in counts.items())
    if done.name != settings.net:
        note(f"'{settings.net}' is another's there; this net is '{done.name}'")
    print_result(
        {
            "mlflow_uri": uri,
            "name": done.name,
            **counts,
            "merges": [merge.model_dump() for merge in done.merges],
        },
        restored_table(done.merges),
        f"{len(done.merges)} merges at {uri}, in '{done.name}': {summary}",
        as_json=as_json,
    )


members.add_to(app)


class _HistoryOption(Document):
    history: HistoryConfig

"""Tables of a coordinator's state and of its history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from rich.table import Table

from rootstock.deploy.output import table
from rootstock.protos.rootstock.operator.v1 import operator_pb2 as pb

if TYPE_CHECKING:
    from rootstock.coordinator.history.rebuild import RestoredMerge

SITES = ("site", "watching", "submission", "category", "state", "received")
MERGES = ("merge", "category", "task", "operation", "state", "step")


def status_tables(answer: pb.GetStatusResponse) -> list[Table | str]:
    """Return what `coordinator status` prints: sites and submissions, merges, and their reasons.

    Reasons are sentences: as a column they would be a few letters wide.
    """
    version = f"version {answer.net_version}" if answer.net_version else "not founded yet"
    shown: list[Table | str] = [table(f"Net {answer.net}, {version}", SITES, _site_rows(answer))]
    if answer.merges:
        rows = (
            (
                merge.merge_id,
                merge.category,
                merge.task,
                merge.operation,
                merge.state,
                f"{merge.step}/{merge.steps}" if merge.steps else "",
            )
            for merge in answer.merges
        )
        shown.append(table("Merges", MERGES, rows, whole=MERGES))
        shown += [f"{merge.merge_id}: {merge.reason}" for merge in answer.merges if merge.reason]
    return shown


def history_line(answer: pb.GetStatusResponse) -> str:
    """Return how many merges MLflow shows, how many wait for it since when, and why."""
    history = answer.history
    counts = [f"{history.logged} logged"]
    if history.waiting:
        counts.append(f"{history.waiting} wait{'s' if history.waiting == 1 else ''}")
    elif history.error:
        counts.append("fails")
    line = f"History: {', '.join(counts)}"
    if history.error:
        since = datetime.fromisoformat(history.failing_since)
        line += f" since {since:%Y-%m-%d %H:%M} UTC: {history.error}"
    if history.page:
        line += f"\nMLflow page: {history.page}"
    if history.name and history.name != answer.net:
        line += f"\n'{answer.net}' is another's there; this net is '{history.name}'."
    return line


def restored_table(merges: Iterable[RestoredMerge]) -> Table:
    """Return what `coordinator history rebuild` prints: the result for each merge's run."""
    rows = (
        (
            merge.merge_id,
            merge.category,
            merge.task,
            merge.state,
            f"v{merge.net_version}" if merge.net_version else "",
            merge.run_id[:8],
            merge.what,
        )
        for merge in merges
    )
    headings = ("merge", "category", "task", "state", "net", "run", "what")
    return table("Merges in MLflow", headings, rows, whole=("merge", "net", "run", "what"))


def _site_rows(answer: pb.GetStatusResponse) -> Iterator[tuple[str, ...]]:
    submissions = {submission.site: submission for submission in answer.submissions}
    for site in answer.sites:
        # A site that has sent nothing yet has empty cells.
        submission = submissions.get(site.name, pb.SubmissionStatus())
        yield (
            site.name,
            "yes" if site.watching else "no",
            submission.submission_id,
            submission.category,
            submission.state,
            _received(submission) if submission.submission_id else "",
        )


def _received(submission: pb.SubmissionStatus) -> str:
    """Say how much of a submission is here, and how much of it did not have to travel."""
    whole = submission.bytes_total
    share = f"{100 * submission.bytes_received // max(whole, 1)}% of {whole / 1e6:.1f} MB"
    if not submission.bytes_held:
        return share
    return f"{share}, {100 * submission.bytes_held // whole}% held before"

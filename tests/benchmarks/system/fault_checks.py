"""What must hold after a run of `bench faults`, whatever went wrong in it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from rootstock.coordinator.growth.states import MergeState, SubmissionState
from rootstock.coordinator.net.reader import NetReader
from rootstock.coordinator.registry import OPEN_MERGES
from rootstock.site_agent.identity import coordinator_key
from rootstock.site_agent.spool.spool import Spool
from tests.support.federation_processes import Running


def broken(running: Running, temporary: Path) -> list[str]:
    """Return what a federation that has stopped breaks of what it promised; nothing is best."""
    return [
        *_lost(running),
        *_undecided(running),
        *_twice(running),
        *_left_over(running, temporary),
    ]


def acknowledged(running: Running) -> set[str]:
    """Return the manifests for which labs hold receipts."""
    found = set()
    for site in running.federation.sites:
        for receipt in (site.state / "spool" / "acknowledged").glob("*/receipt.*.json"):
            found.add(json.loads(receipt.read_text())["manifest_digest"])
    return found


def _lost(running: Running) -> list[str]:
    with NetReader.open(running.coordinator) as view:
        uploads = {digest: view.registry.uploads.find(digest) for digest in acknowledged(running)}
        return [
            f"lost: submission {digest} was acknowledged"
            for digest, upload in uploads.items()
            if upload is None or upload.receipt is None
        ]


def _undecided(running: Running) -> list[str]:
    problems = []
    with NetReader.open(running.coordinator) as view:
        for merge in view.registry.merges.all():
            if merge.state in OPEN_MERGES:
                problems.append(f"open: merge {merge.id} is {merge.state}")
            elif merge.state is not MergeState.MERGED:
                # Nothing is wrong with these nets, so each is to be merged in the end.
                problems.append(f"ended: merge {merge.id} {merge.state}: {merge.reason}")
        for submission in view.registry.submissions.all():
            if submission.state in (SubmissionState.RECEIVED, SubmissionState.REFUSED):
                problems.append(f"submission {submission.id} is {submission.state}")
    return problems


def _twice(running: Running) -> list[str]:
    with NetReader.open(running.coordinator) as view:
        merges = Counter((m.category, m.task) for m in view.registry.merges.all())
        versions = Counter(m.net_version for m in view.registry.merges.all(MergeState.MERGED))
    return [
        f"twice: {what} {count} times" for what, count in (merges + versions).items() if count > 1
    ]


def _left_over(running: Running, temporary: Path) -> list[str]:
    state = running.state
    problems = [f"left over: {path.relative_to(state)}" for path in state.rglob("*.aside")]
    for folder in (
        running.coordinator.state / "incoming",
        *(site.state / "spool" / "staging" for site in running.federation.sites),
    ):
        problems += [f"left over: {p.relative_to(state)}" for p in folder.rglob("*") if p.is_file()]
    problems += [
        f"left over: $TMPDIR/{path.name}"
        for path in temporary.iterdir()
        if not path.name.startswith("torchinductor_")  # torch's own, and empty
    ]
    for site in running.federation.sites:
        spool = Spool(site.state / "spool", problems.append, coordinator_key(site))
        waiting = [
            *(e.digest for e in spool.entries()),
            *(r.evaluation_id for r in spool.reports()),
        ]
        problems += [f"waits: {site.site} has not sent {what}" for what in waiting]
    return problems

"""The ledger has what leaves before it leaves, whatever the coordinator says that it holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog

from rootstock.common.errors import ConflictError, RefusedError, UnreachableError
from rootstock.common.identity.keys import fingerprint
from rootstock.common.protocol import Limits
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.site_agent.config import NetworkConfig
from rootstock.site_agent.consent.ledger import Ledger, LedgerEntry, read_ledger
from rootstock.site_agent.shipping import Shipping
from rootstock.site_agent.spool.documents import EvaluationReport
from rootstock.site_agent.spool.spool import Spool
from rootstock.site_agent.state import StatusFile
from tests.support import digits_lab
from tests.support.digits_lab import COORDINATOR, KEY


class FakeCoordinator:
    """A client that looks at the ledger at each call, and whose uploads all break off."""

    def __init__(self, state: Path) -> None:
        self.limits, self.network, self.stop = Limits(), NetworkConfig(), None
        self.stub = SimpleNamespace(
            BeginUpload="begin", Upload=SimpleNamespace(future=self._upload)
        )
        self.begins: list[pb.BeginUploadResponse] = []
        self.seen: list[list[LedgerEntry]] = []
        self.reports: list[EvaluationReport] = []
        self._state = state

    def patient(self, attempt: Callable[[], Any], **_: object) -> Any:
        while True:
            try:
                return attempt()
            except UnreachableError:
                continue

    def unary(self, _: str, __: object) -> pb.BeginUploadResponse:
        self.seen.append(list(read_ledger(self._state)))
        if not self.begins:
            raise RefusedError("that was all")
        return self.begins.pop(0)

    def report(self, report: EvaluationReport) -> bool:
        self.seen.append(list(read_ledger(self._state)))
        self.reports.append(report)
        if report.results or not report.failure:
            raise ConflictError("the merge is over")
        return True

    def _upload(self, _: object) -> None:
        self.seen.append(list(read_ledger(self._state)))
        raise UnreachableError("broke off")


def shipping(folder: Path, centre: FakeCoordinator) -> Shipping:
    return Shipping(
        cast(Any, centre),
        KEY,
        COORDINATOR.public_key,
        Spool(folder / "spool", lambda _: None, COORDINATOR.public_key),
        Ledger(folder, fingerprint(COORDINATOR.public_key)),
        StatusFile(folder / "status.json", "lab-0", "zero"),
        cast(Any, structlog.testing.CapturingLogger()),
        folder,
        lambda _: None,
    )


def commit(spool: Spool) -> None:
    with spool.staging() as staging:
        spool.commit(staging, digits_lab.untrained(staging), "run")


def test_a_blob_of_which_more_is_asked_for_later_is_listed_again(tmp_path: Path) -> None:
    centre = FakeCoordinator(tmp_path)
    ships = shipping(tmp_path, centre)
    commit(ships.spool)
    (entry,) = ships.spool.entries()
    f = entry.manifest.blobs()[0]
    held = pb.MissingBlob(digest=f.digest, held_tensors=list(f.tensors))
    whole = pb.MissingBlob(digest=f.digest)
    centre.begins = [pb.BeginUploadResponse(missing=[each]) for each in (held, whole, held, whole)]
    with pytest.raises(RefusedError, match="that was all"):
        ships.send()
    sizes = [each.bytes for each in read_ledger(tmp_path) if each.what == "blob"]
    assert len(sizes) == 2
    assert sizes[0] < sizes[1] == f.size
    assert [each.what for each in centre.seen[0]] == ["manifest"]
    assert centre.seen[3][-1].bytes == f.size  # before the second try of it


def test_a_manifest_that_is_asked_about_is_listed(tmp_path: Path) -> None:
    """At each start: the coordinator is asked whether it still has the teacher net."""
    centre = FakeCoordinator(tmp_path)
    ships = shipping(tmp_path, centre)
    commit(ships.spool)
    (entry,) = ships.spool.entries()
    centre.begins = [pb.BeginUploadResponse(receipt=pb.Receipt())]
    assert ships.is_received(entry)
    ((line,),) = centre.seen
    assert (line.what, line.subject) == ("manifest", entry.digest)


def test_the_text_of_a_failure_is_listed(tmp_path: Path) -> None:
    centre = FakeCoordinator(tmp_path)
    ships = shipping(tmp_path, centre)
    ships.spool.add_report(EvaluationReport(evaluation_id="evl-0001", failure="no such task"))
    ships.spool.add_report(EvaluationReport(evaluation_id="evl-0002"))  # it is refused
    ships.send()
    for report, seen in zip(centre.reports, centre.seen, strict=True):
        assert (seen[-1].subject, seen[-1].failure) == (report.evaluation_id, report.failure)
    assert [report.failure for report in centre.reports] == [
        "no such task",
        "",
        "report refused: ConflictError: the merge is over",
    ]

"""The spool: nothing leaves it without a signed receipt, and nothing breaks it."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rootstock.common.errors import IntegrityError, SchemaError, StorageError
from rootstock.common.identity.keys import SigningKey, fingerprint
from rootstock.site_agent.config import StatisticsConfig
from rootstock.site_agent.spool.documents import (
    CalibratedError,
    CandidateError,
    EvaluationReport,
    SignedReceipt,
)
from rootstock.site_agent.spool.older_layout import adopt
from rootstock.site_agent.spool.spool import Spool, SpoolEntry
from rootstock.site_agent.wire.upload import what_was_sent
from tests.support import digits_lab

CENTRE = digits_lab.COORDINATOR
UNSALTED = StatisticsConfig(feature_norm=False, channel_means=False, channel_variances=False)
"""The same manifest each time: with statistics it would have their salt."""


def receipt(digest: str, key: SigningKey = CENTRE) -> SignedReceipt:
    said = f"{digest} sub-0001 2026-01-01T00:00:00Z"
    return SignedReceipt(
        manifest_digest=digest,
        submission_id="sub-0001",
        received_at="2026-01-01T00:00:00Z",
        signature=key.sign(said.encode()).hex(),
    )


def fill(spool: Spool, **changes: object) -> SpoolEntry:
    with spool.staging() as staging:
        manifest = digits_lab.untrained(staging, **changes)
        return spool.commit(staging, manifest, "run")


def open_spool(tmp_path: Path, key: SigningKey = CENTRE) -> tuple[Spool, list[str]]:
    warnings: list[str] = []
    return Spool(tmp_path / "spool", warnings.append, key.public_key), warnings


def reports_of(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "reports" / fingerprint(CENTRE.public_key)


def test_an_entry_outlives_the_process(tmp_path: Path) -> None:
    entry = fill(open_spool(tmp_path)[0])
    spool, warnings = open_spool(tmp_path)
    assert spool.entries() == [entry]
    assert spool.made_by("run") == [entry]
    assert spool.find(entry.digest) == entry
    assert not warnings
    for blob in entry.manifest.blobs():
        assert entry.blob(blob.digest).stat().st_size == blob.size


def test_what_was_sent_is_kept_with_an_entry(tmp_path: Path) -> None:
    spool, _ = open_spool(tmp_path)
    entry = fill(spool)
    assert entry.sent == 0
    spool.note_sent(entry, 1200)
    spool.note_sent(entry, 61_200)
    again, warnings = open_spool(tmp_path)
    assert again.entries()[0].sent == 61_200
    assert again.acknowledge(entry, receipt(entry.digest)).sent == 61_200
    (found,) = again.acknowledged()
    found.sent_file.write_bytes(b"\xff")
    assert (found.sent, warnings) == (0, [])


@pytest.mark.parametrize(
    ("sent", "total", "said"),
    [
        (999, 999, "sent 999 bytes"),
        (61_234, 812_345, "sent 61.2 KB of 812.3 KB: the coordinator holds the rest"),
        (0, 2_000_000, "sent 0 bytes of 2.0 MB: the coordinator holds the rest"),
        (1_500, 1_400, "sent 1.5 KB"),
    ],
)
def test_how_much_was_sent_is_told_to_people(sent: int, total: int, said: str) -> None:
    assert what_was_sent(sent, total) == said


def test_only_a_receipt_empties_it(tmp_path: Path) -> None:
    spool, _ = open_spool(tmp_path)
    entry = fill(spool)
    with pytest.raises(IntegrityError, match="signature of the receipt"):
        spool.acknowledge(entry, receipt(entry.digest, SigningKey.generate()))
    with pytest.raises(IntegrityError, match="receipt is for manifest"):
        spool.acknowledge(entry, receipt("0" * 64))
    assert spool.entries() == [entry]
    kept = spool.acknowledge(entry, receipt(entry.digest))
    assert not spool.entries()
    assert spool.find(entry.digest) == kept
    assert kept.blob(kept.manifest.blobs()[0].digest).exists()


def test_acknowledging_again_does_no_harm(tmp_path: Path) -> None:
    spool, warnings = open_spool(tmp_path)
    entry = fill(spool)
    kept = spool.acknowledge(entry, receipt(entry.digest))
    for again in (entry, kept):
        assert spool.acknowledge(again, receipt(entry.digest)) == kept
    # A backup puts the entry back into the queue, while the shipped one stands there, damaged.
    shutil.copytree(kept.folder, entry.folder)
    kept.blob(kept.manifest.blobs()[0].digest).unlink()
    spool, _ = open_spool(tmp_path)
    assert spool.entries() == [entry]
    assert spool.acknowledge(entry, receipt(entry.digest)) == kept
    assert not spool.entries()
    assert not warnings
    for blob in kept.manifest.blobs():
        assert kept.blob(blob.digest).stat().st_size == blob.size


def test_the_same_manifest_twice_is_one_entry(tmp_path: Path) -> None:
    spool, _ = open_spool(tmp_path)
    first = fill(spool, statistics=UNSALTED)
    assert fill(spool, statistics=UNSALTED) == first
    spool.acknowledge(first, receipt(first.digest))
    assert fill(spool, statistics=UNSALTED).folder.parent.name == "acknowledged"
    assert not spool.entries()


def test_a_missing_blob_makes_no_entry(tmp_path: Path) -> None:
    spool, _ = open_spool(tmp_path)
    with spool.staging() as staging:
        manifest = digits_lab.untrained(staging)
        (staging / manifest.category_module.digest).unlink()
        with pytest.raises(SchemaError, match="is not the blob"):
            spool.commit(staging, manifest, "run")
    assert not spool.entries()


@pytest.mark.parametrize("damage", ["blob", "cut", "manifest", "run"])
def test_a_damaged_entry_is_set_aside_with_a_message(tmp_path: Path, damage: str) -> None:
    entry = fill(open_spool(tmp_path)[0])
    blob = entry.blob(entry.manifest.blobs()[0].digest)
    if damage == "blob":
        content = bytearray(blob.read_bytes())
        content[-1] ^= 1
        blob.write_bytes(content)
    elif damage == "cut":
        blob.write_bytes(blob.read_bytes()[:-1])
    elif damage == "manifest":
        path = entry.folder / "manifest.json"
        path.write_bytes(path.read_bytes().replace(b"zero", b"nine"))
    else:
        (entry.folder / "run").unlink()
    spool, warnings = open_spool(tmp_path)
    assert not spool.entries()
    assert len(warnings) == 1
    assert "set aside" in warnings[0]
    (aside,) = (tmp_path / "spool" / "aside").iterdir()
    assert (aside / "why.txt").read_text().strip()
    assert (aside / "blobs").is_dir()


WRITER = """
import sys
from pathlib import Path
import torch
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.weights.manifest import AdapterEntry, RefinementManifest
from rootstock.site_agent.spool.spool import Spool
from rootstock.site_agent.teacher.package import write_blob
spool = Spool(Path(sys.argv[1]), print, bytes.fromhex(sys.argv[2]))
number = 0
while True:
    number += 1
    with spool.staging() as staging:
        blob = write_blob(staging, {"weight": torch.full((1 << 18,), float(number))})
        entry = AdapterEntry(spec=AdapterSpec(in_channels=8, out_channels=8), blob=blob)
        manifest = RefinementManifest(site="lab", evaluation=f"evl-{number}", adapter=entry)
        spool.commit(staging, manifest, f"run {number}")
    print(number, flush=True)
"""


def test_kill_9_while_writing_leaves_whole_entries_only(tmp_path: Path) -> None:
    for attempt in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "spool"), CENTRE.public_key.hex()],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()  # one entry is whole
        time.sleep(0.11 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        spool, warnings = open_spool(tmp_path)
        assert spool.entries()
        # Opening checked every blob's digest: nothing that was committed is damaged.
        assert all("ended while it was being written" in text for text in warnings)
        assert not list((tmp_path / "spool" / "staging").iterdir())


def test_a_full_disk_makes_no_entry_and_says_so(tmp_path: Path) -> None:
    spool, _ = open_spool(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file that may not grow further is what a full disk looks like to the writer.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        with pytest.raises(StorageError, match="File too large; raise the file size limit"):
            fill(spool)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not spool.entries()
    assert not list((tmp_path / "spool" / "staging").iterdir())
    assert fill(spool).manifest.site == "lab-0"


def test_reports_wait_and_can_be_recalled(tmp_path: Path) -> None:
    spool, _ = open_spool(tmp_path)
    calibration = CalibratedError(scale=0.1, bias=-1 / 3, error=2.5)
    result = CandidateError(name="zero_sample", error=12.5, samples=40, calibration=calibration)
    report = EvaluationReport(evaluation_id="evl-0001", results=(result,))
    spool.add_report(report)
    spool, _ = open_spool(tmp_path)
    assert spool.reports() == [report]
    spool.acknowledge_report("evl-0001")
    assert not spool.reports()
    assert spool.recall_report("evl-0001")
    assert spool.reports() == [report]
    assert not spool.recall_report("evl-0002")


def test_what_waits_for_one_coordinator_is_none_of_another_s(tmp_path: Path) -> None:
    spool, _ = open_spool(tmp_path)
    shipped, waiting = fill(spool), fill(spool, category="one")
    spool.note_sent(shipped, 1200)
    spool.acknowledge(shipped, receipt(shipped.digest))
    for name in ("evl-0001", "evl-0002"):
        spool.add_report(EvaluationReport(evaluation_id=name, failure="no"))
    spool.acknowledge_report("evl-0001")

    other = SigningKey.generate()
    there, warnings = open_spool(tmp_path, other)
    assert (there.entries(), there.acknowledged(), there.reports()) == ([], [], [])
    assert not there.recall_report("evl-0001")
    assert not there.recall_report("evl-0002")
    assert {entry.digest for entry in there.all()} == {shipped.digest, waiting.digest}
    found = there.find(shipped.digest)
    assert found is not None
    assert (found.acknowledged, found.sent) == (False, 0)
    # The same teacher for both: each has its own receipt.
    queued = there.queue(found)
    assert queued is not None
    assert there.entries() == [queued]
    with pytest.raises(IntegrityError, match="signature of the receipt"):
        there.acknowledge(queued, receipt(queued.digest))
    assert there.acknowledge(queued, receipt(queued.digest, other)).acknowledged

    back, _ = open_spool(tmp_path)
    assert [entry.digest for entry in back.entries()] == [waiting.digest]
    assert [(entry.digest, entry.sent) for entry in back.acknowledged()] == [(shipped.digest, 1200)]
    assert [report.evaluation_id for report in back.reports()] == ["evl-0002"]
    assert back.recall_report("evl-0001")
    assert warnings == []


def test_the_same_manifest_made_for_another_coordinator_is_queued(tmp_path: Path) -> None:
    spool, _ = open_spool(tmp_path)
    first = fill(spool)
    spool.acknowledge(first, receipt(first.digest))
    there, _ = open_spool(tmp_path, SigningKey.generate())
    queued = fill(there)
    assert there.entries() == [queued]


def test_what_was_damaged_since_another_coordinator_got_it_is_not_shipped(tmp_path: Path) -> None:
    spool, _ = open_spool(tmp_path)
    entry = fill(spool)
    kept = spool.acknowledge(entry, receipt(entry.digest))
    blob = kept.blob(kept.manifest.blobs()[0].digest)
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    there, warnings = open_spool(tmp_path, SigningKey.generate())
    (found,) = there.made_by("run")
    assert there.queue(found) is None
    assert there.all() == []
    assert "does not match its digest" in warnings[0]


def test_an_older_spool_of_two_coordinators_is_left_alone(tmp_path: Path) -> None:
    """Whose its cursor and its reports are, nothing tells: both start anew."""
    other = SigningKey.generate()
    spool, _ = open_spool(tmp_path)
    for category, key in (("zero", CENTRE), ("one", other)):
        entry = fill(spool, category=category)
        folder = tmp_path / "spool" / "acknowledged" / entry.digest
        entry.folder.rename(folder)
        (folder / "receipt.json").write_bytes(receipt(entry.digest, key).canonical())
    (tmp_path / "spool" / "reported" / "evl-0001.json").write_bytes(b"{}")
    (tmp_path / "cursor.json").write_bytes(b'{"cursor":7}')
    for key in (CENTRE, other):
        adopt(tmp_path, key.public_key)
        opened, _ = open_spool(tmp_path, key)
        assert opened.acknowledged() == []
        assert not opened.recall_report("evl-0001")
    assert (tmp_path / "cursor.json").exists()


def test_a_report_from_before_calibrations_is_still_sent(tmp_path: Path) -> None:
    spool, warnings = open_spool(tmp_path)
    old = b"""{"evaluation_id": "evl-0001", "refined_error": 2.0, "results": [
        {"error": 12.5, "name": "zero_sample", "samples": 40}]}"""
    (reports_of(tmp_path) / "evl-0001.json").write_bytes(old)
    (report,) = spool.reports()
    assert report.results[0].calibration is None
    assert report.refined_calibration is None
    assert warnings == []


def test_a_damaged_report_is_set_aside(tmp_path: Path) -> None:
    spool, warnings = open_spool(tmp_path)
    (reports_of(tmp_path) / "evl-0001.json").write_bytes(b"{")
    assert not spool.reports()
    assert "evl-0001.json: set aside" in warnings[0]


def test_a_withdrawn_entry_is_not_shipped(tmp_path: Path) -> None:
    spool, warnings = open_spool(tmp_path)
    spool.withdraw(fill(spool), "settings have changed")
    assert not spool.entries()
    assert "settings have changed" in warnings[0]


def test_finding_one_entry_looks_at_no_other(tmp_path: Path) -> None:
    spool, warnings = open_spool(tmp_path)
    entry, other = fill(spool), fill(spool, category="one")
    (other.folder / "run").unlink()
    assert spool.find(entry.digest) == entry
    assert other.folder.is_dir()
    assert not warnings
    assert spool.find(other.digest) is None
    assert other.digest in warnings[0]

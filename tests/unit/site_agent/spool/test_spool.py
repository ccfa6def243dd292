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
from rootstock.common.identity.keys import SigningKey
from rootstock.site_agent.spool.documents import (
    CalibratedError,
    CandidateError,
    EvaluationReport,
    SignedReceipt,
)
from rootstock.site_agent.spool.spool import Spool, SpoolEntry
from rootstock.site_agent.wire.upload import what_was_sent
from tests.support import digits_lab

CENTRE = SigningKey.generate()


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
        return spool.commit(staging, manifest, digits_lab.KEY.sign(manifest.canonical()), "run")


def open_spool(tmp_path: Path) -> tuple[Spool, list[str]]:
    warnings: list[str] = []
    return Spool(tmp_path / "spool", warnings.append), warnings


def test_an_entry_outlives_the_process(tmp_path: Path) -> None:
    entry = fill(open_spool(tmp_path)[0])
    spool, warnings = open_spool(tmp_path)
    assert spool.entries() == [entry]
    assert spool.made_by("run") == entry
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
    assert again.acknowledge(entry, receipt(entry.digest), CENTRE.public_key).sent == 61_200
    (found,) = again.acknowledged()
    (found.folder / "sent").write_bytes(b"\xff")
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
        spool.acknowledge(entry, receipt(entry.digest, SigningKey.generate()), CENTRE.public_key)
    with pytest.raises(IntegrityError, match="receipt is for manifest"):
        spool.acknowledge(entry, receipt("0" * 64), CENTRE.public_key)
    assert spool.entries() == [entry]
    kept = spool.acknowledge(entry, receipt(entry.digest), CENTRE.public_key)
    assert not spool.entries()
    assert spool.find(entry.digest) == kept
    assert kept.blob(kept.manifest.blobs()[0].digest).exists()


def test_acknowledging_again_does_no_harm(tmp_path: Path) -> None:
    spool, warnings = open_spool(tmp_path)
    entry = fill(spool)
    kept = spool.acknowledge(entry, receipt(entry.digest), CENTRE.public_key)
    for again in (entry, kept):
        assert spool.acknowledge(again, receipt(entry.digest), CENTRE.public_key) == kept
    # A backup puts the entry back into the queue, while the shipped one stands there, damaged.
    shutil.copytree(kept.folder, entry.folder)
    kept.blob(kept.manifest.blobs()[0].digest).unlink()
    spool, _ = open_spool(tmp_path)
    assert spool.entries() == [entry]
    assert spool.acknowledge(entry, receipt(entry.digest), CENTRE.public_key) == kept
    assert not spool.entries()
    assert not warnings
    for blob in kept.manifest.blobs():
        assert kept.blob(blob.digest).stat().st_size == blob.size


def test_the_same_manifest_twice_is_one_entry(tmp_path: Path) -> None:
    spool, _ = open_spool(tmp_path)
    first = fill(spool)
    assert fill(spool) == first
    spool.acknowledge(first, receipt(first.digest), CENTRE.public_key)
    assert fill(spool).folder.parent.name == "acknowledged"
    assert not spool.entries()


def test_a_missing_blob_makes_no_entry(tmp_path: Path) -> None:
    spool, _ = open_spool(tmp_path)
    with spool.staging() as staging:
        manifest = digits_lab.untrained(staging)
        (staging / manifest.category_module.digest).unlink()
        with pytest.raises(SchemaError, match="is not the blob"):
            spool.commit(staging, manifest, b"", "run")
    assert not spool.entries()


@pytest.mark.parametrize("damage", ["blob", "cut", "manifest", "signature"])
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
        (entry.folder / "signature").unlink()
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
spool = Spool(Path(sys.argv[1]), print)
number = 0
while True:
    number += 1
    with spool.staging() as staging:
        blob = write_blob(staging, {"weight": torch.full((1 << 18,), float(number))})
        entry = AdapterEntry(spec=AdapterSpec(in_channels=8, out_channels=8), blob=blob)
        manifest = RefinementManifest(site="lab", evaluation=f"evl-{number}", adapter=entry)
        spool.commit(staging, manifest, b"signature", f"run {number}")
    print(number, flush=True)
"""


def test_kill_9_while_writing_leaves_whole_entries_only(tmp_path: Path) -> None:
    for attempt in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "spool")], stdout=subprocess.PIPE
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


def test_a_report_from_before_calibrations_is_still_sent(tmp_path: Path) -> None:
    spool, warnings = open_spool(tmp_path)
    old = b"""{"evaluation_id": "evl-0001", "refined_error": 2.0, "results": [
        {"error": 12.5, "name": "zero_sample", "samples": 40}]}"""
    (tmp_path / "spool" / "reports" / "evl-0001.json").write_bytes(old)
    (report,) = spool.reports()
    assert report.results[0].calibration is None
    assert report.refined_calibration is None
    assert warnings == []


def test_a_damaged_report_is_set_aside(tmp_path: Path) -> None:
    spool, warnings = open_spool(tmp_path)
    (tmp_path / "spool" / "reports" / "evl-0001.json").write_bytes(b"{")
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
    (other.folder / "signature").unlink()
    assert spool.find(entry.digest) == entry
    assert other.folder.is_dir()
    assert not warnings
    assert spool.find(other.digest) is None
    assert other.digest in warnings[0]

"""Partial uploads: what is swept, and what is not theirs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.service.uploads.dedup import TensorDedup
from rootstock.coordinator.service.uploads.partial import PartialUploads


def test_only_files_of_blobs_are_swept(context: CoordinatorContext, tmp_path: Path) -> None:
    folder = tmp_path / "incoming" / "cat-lab"
    folder.mkdir(parents=True)
    digest = "a" * 64
    ours = [digest, f"{digest}.part", f"{digest}-0123.part", f"{digest}.filling"]
    for name in (*ours, "notes.txt", "scan-01.part"):
        (folder / name).touch()
        os.utime(folder / name, (0, 0))
    partial = PartialUploads(folder.parent, TensorDedup(context), 1 << 20)
    asyncio.run(partial.sweep(lambda site, digest: False, 60.0))
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "scan-01.part"]

"""Uploads in a registry, and a clock that a test sets."""

from __future__ import annotations

from rootstock.common.weights.manifest import RefinementManifest, TeacherManifest
from rootstock.coordinator.registry import Receipt, Registry, Upload
from tests.support.named_blobs import adapter


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def begin(
    registry: Registry, manifest: TeacherManifest | RefinementManifest, open_limit: int = 4
) -> Upload:
    return registry.uploads.begin(
        manifest, manifest.canonical(), b"signature", open_limit=open_limit
    )


def receive(registry: Registry, upload: Upload) -> Receipt:
    receipt = Receipt(upload.manifest_digest, upload.id, "2026-01-01T00:00:00+00:00", b"signed")
    return registry.uploads.receive(upload.id, receipt)


def refinement(evaluation: str, site: str = "cat-lab", name: str = "refined") -> RefinementManifest:
    return RefinementManifest(site=site, evaluation=evaluation, adapter=adapter(name))

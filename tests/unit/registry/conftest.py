from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootstock.common.weights.manifest import RefinementManifest, TeacherManifest
from rootstock.coordinator.registry import (
    Merge,
    MergeState,
    Receipt,
    Registry,
    SubmissionState,
    Upload,
)
from tests.unit.growth.examples import adapter, teacher


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'registry.sqlite'}"


@pytest.fixture
def registry(url: str, clock: Clock) -> Iterator[Registry]:
    opened = Registry(url, clock)
    opened.sites.join("cat-lab", b"c" * 32)
    opened.sites.join("dog-lab", b"d" * 32)
    yield opened
    opened.close()


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


@pytest.fixture
def admitted(registry: Registry) -> Callable[[str], str]:
    """Returns how to bring a category's teacher to `admitted`; gives the submission's id."""

    def bring(category: str) -> str:
        upload = begin(registry, teacher(category, "classification"))
        receive(registry, upload)
        registry.submissions.set_state(upload.id, SubmissionState.ADMITTED)
        return upload.id

    return bring


@pytest.fixture
def evaluating(registry: Registry, admitted: Callable[[str], str]) -> Callable[[str], Merge]:
    """Returns how to bring a category's merge to `evaluating`."""

    def bring(category: str) -> Merge:
        merge = registry.merges.create(
            admitted(category), category, "classification", "new-category"
        )
        registry.merges.advance(merge.id, MergeState.DISTILLING)
        return registry.merges.advance(merge.id, MergeState.EVALUATING)

    return bring

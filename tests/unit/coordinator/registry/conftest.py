from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.registry import Merge, MergeState, Registry, SubmissionState
from tests.support.named_blobs import teacher
from tests.support.registry_uploads import Clock, begin, receive


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
            admitted(category), category, "classification", OperationKind.NEW_CATEGORY
        )
        registry.merges.advance(merge.id, MergeState.DISTILLING)
        return registry.merges.advance(merge.id, MergeState.EVALUATING)

    return bring

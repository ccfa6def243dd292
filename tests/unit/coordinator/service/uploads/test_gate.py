"""What the operator has revoked does not come in again, whoever ships it."""

from __future__ import annotations

import pytest

from rootstock.common.errors import SchemaError
from rootstock.coordinator.service.uploads.gate import check_revoked
from tests.support.named_blobs import teacher


def test_revoked_modules_and_manifests_are_refused() -> None:
    manifest, other = teacher("cat", "classification"), teacher("dog", "classification")
    document = manifest.canonical()
    revoked = (other.category_module.digest, other.content_digest())
    check_revoked(manifest, document, revoked)
    for digest in (
        manifest.category_module.digest,
        manifest.task_modules["classification"].digest,
        manifest.content_digest(),
    ):
        with pytest.raises(SchemaError, match=f"^revoked: {digest} is not let in any more"):
            check_revoked(manifest, document, (*revoked, digest))

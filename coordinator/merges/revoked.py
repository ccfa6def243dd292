"""Modules and manifests that the operator has revoked (`admission.revoked`)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from rootstock.common.errors import SchemaError
from rootstock.common.weights.manifest import Manifest


def check_revoked(manifest: Manifest, document: bytes, revoked: Collection[str]) -> None:
    """Refuse a manifest that the operator has revoked, or that brings a blob that he has."""
    whole = hashlib.sha256(document).hexdigest()
    for digest in (whole, *(entry.digest for entry in manifest.blobs())):
        if digest in revoked:
            raise SchemaError(
                f"revoked: {digest} is not let in any more, the operator has revoked it; train "
                "anew, and ask why (admission.revoked)"
            )

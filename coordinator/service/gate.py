"""What can be told from a manifest alone, before a byte of its blobs is taken."""

from __future__ import annotations

from common.errors import SchemaError
from common.plan import Plan
from common.weights.admission import admit_manifest
from common.weights.manifest import Manifest, TeacherManifest


def check_manifest(manifest: Manifest, plan: Plan) -> None:
    """Refuse a manifest that cannot be admitted whatever its blobs hold.

    The whole gate, blobs included, is `common.weights.admission.admit`, after the receipt.

    Raises
    ------
    SchemaError
        If the teacher was trained under another plan: other initial weights would not do.
    RefusedError
        See `common.weights.admission.admit_manifest`.
    """
    if isinstance(manifest, TeacherManifest) and manifest.plan != plan.content_digest():
        raise SchemaError(
            f"plan: the teacher was trained under plan {manifest.plan}, the coordinator's is "
            f"{plan.content_digest()}; fetch the plan again and train under it"
        )
    admit_manifest(manifest, plan)

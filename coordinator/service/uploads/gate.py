"""What can be told from a manifest alone, before a byte of its blobs is taken."""

from __future__ import annotations

from rootstock.common.errors import SchemaError
from rootstock.common.protocol import Heads, Plan
from rootstock.common.weights.admission import admit_manifest
from rootstock.common.weights.manifest import Manifest, TeacherManifest


def check_manifest(manifest: Manifest, plan: Plan, heads: Heads | None) -> None:
    """Refuse a manifest that cannot be admitted whatever its blobs hold.

    The whole gate, blobs included, is `common.weights.admission.admit`, after the receipt.

    Raises
    ------
    SchemaError
        If the teacher was trained under another plan: other initial weights would not do. Or
        below heads that are not published any more: it would not fit the net as it claims to.
    RefusedError
        See `rootstock.common.weights.admission.admit_manifest`.
    """
    if isinstance(manifest, TeacherManifest) and manifest.plan != plan.content_digest():
        raise SchemaError(
            f"plan: the teacher was trained under plan {manifest.plan}, the coordinator's is "
            f"{plan.content_digest()}; fetch the plan again and train under it"
        )
    published = None if heads is None else heads.content_digest()
    if isinstance(manifest, TeacherManifest) and manifest.heads not in (None, published):
        raise SchemaError(
            f"heads: the teacher was trained below auxiliary heads {manifest.heads}, published now "
            f"are {published or 'none'}; fetch the plan again and train below those"
        )
    admit_manifest(manifest, plan)

"""Whose a store is: one coordinator's, known by its key."""

from __future__ import annotations

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.errors import ConflictError
from rootstock.common.identity.keys import key_id

OWNER = "coordinator/key"
"""The name of a store that points at the SHA-256 of its coordinator's public key."""


def claim_store(store: BlobStore, public_key: bytes, address: str) -> None:
    """Make a store this coordinator's; ConflictError if it is another one's.

    Every coordinator has a mrg-0001 and a sub-0001: two in one bucket would go on from each other's
    checkpoints, and delete each other's samples and, in time, the blobs of each other's net. Of two
    that claim a store in the same instant, one may notice at its next start only.
    """
    own = key_id(public_key)
    if store.get_ref(OWNER) is None:
        store.put_ref(OWNER, own)
    found = store.get_ref(OWNER)
    if found != own:
        raise ConflictError(
            f'artifacts = "{address}": the store of the coordinator with key {str(found)[:16]}, '
            f"this one's is {own[:16]}; two would delete each other's blobs: give this one a "
            "folder or a prefix of its own, or name the state folder that has the other's key"
        )

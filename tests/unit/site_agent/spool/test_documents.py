"""A receipt proves that it is in the coordinator's log."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rootstock.common.errors import RefusedError
from rootstock.common.identity.keys import SigningKey, key_id
from rootstock.common.provenance.log import LogEntry, LogHead, LogKind
from rootstock.common.provenance.merkle import Tree, inclusion_proof, leaf_hash
from rootstock.site_agent.spool.documents import SignedReceipt

KEY = SigningKey.generate()


def entry(index: int, **changes: object) -> str:
    facts = {"manifest": f"{index}" * 64} | changes
    made = LogEntry(
        index=index,
        kind=LogKind.RECEIVED,
        subject=f"sub-000{index}",
        by="site/lab",
        at="2026-01-01T00:00:00.000+00:00",
        facts=facts,
    )
    return made.canonical().decode()


ENTRIES = [entry(index) for index in range(5)]


def logged(index: int = 2) -> SignedReceipt:
    tree = Tree()
    for each in ENTRIES:
        tree.append(leaf_hash(each.encode()))
    net, at = key_id(KEY.public_key), "2026-01-01T00:00:00.000+00:00"
    head = LogHead(size=tree.size, root=tree.root().hex(), at=at, net=net)
    return SignedReceipt(
        manifest_digest=f"{index}" * 64,
        submission_id=f"sub-000{index}",
        received_at=at,
        signature="0" * 128,
        head=head.sealed(KEY).decode(),
        entry=ENTRIES[index],
        inclusion=tuple(each.hex() for each in inclusion_proof(index, tree.size, tree.node)),
    )


def test_a_receipt_that_is_in_the_log() -> None:
    for index in range(5):
        receipt = logged(index)
        receipt.verify_logged(KEY.public_key)
        assert SignedReceipt.parse(receipt.canonical(), what="it") == receipt


@pytest.mark.parametrize(
    "forge",
    [
        lambda receipt: {"head": ""},
        lambda receipt: {"entry": ""},
        lambda receipt: {"inclusion": ()},
        lambda receipt: {"entry": ENTRIES[3], "inclusion": logged(3).inclusion},
        lambda receipt: {"entry": entry(2, manifest="f" * 64)},
        lambda receipt: {"entry": entry(2, site="other")},
        lambda receipt: {"manifest_digest": "f" * 64},
        lambda receipt: {"submission_id": "sub-0004"},
        lambda receipt: {"inclusion": receipt.inclusion[::-1]},
    ],
    ids=[
        *("no head", "no entry", "no proof", "another's entry", "another manifest"),
        *("another fact", "of another manifest", "of another upload", "another proof"),
    ],
)
def test_a_receipt_that_is_not(forge: Callable[[SignedReceipt], dict[str, object]]) -> None:
    receipt = logged()
    with pytest.raises(RefusedError):
        receipt.model_copy(update=forge(receipt)).verify_logged(KEY.public_key)
    with pytest.raises(RefusedError):
        receipt.verify_logged(SigningKey.generate().public_key)


def test_a_receipt_of_before_keeps_its_bytes() -> None:
    old = logged().model_copy(update={"head": "", "entry": "", "inclusion": ()})
    assert set(SignedReceipt.parse(old.canonical(), what="it").model_dump()) == {
        *("manifest_digest", "submission_id", "received_at", "signature"),
    }

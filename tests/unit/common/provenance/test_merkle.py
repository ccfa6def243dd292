"""The tree against RFC 9162's published example, and an oracle that follows its definitions."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootstock.common.errors import IntegrityError
from rootstock.common.provenance.merkle import (
    EMPTY_ROOT,
    Tree,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

# The eight-leaf log that Certificate Transparency's implementations share as test vectors.
ENTRIES = [
    bytes.fromhex(each)
    for each in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def tree_of(entries: list[bytes]) -> Tree:
    tree = Tree()
    for entry in entries:
        tree.append(leaf_hash(entry))
    return tree


def oracle_root(entries: list[bytes]) -> bytes:
    """MTH of RFC 9162, section 2.1.1, word for word."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = split(len(entries))
    return hashlib.sha256(b"\x01" + oracle_root(entries[:k]) + oracle_root(entries[k:])).digest()


def oracle_path(m: int, entries: list[bytes]) -> list[bytes]:
    """PATH of section 2.1.3.1."""
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if m < k:
        return [*oracle_path(m, entries[:k]), oracle_root(entries[k:])]
    return [*oracle_path(m - k, entries[k:]), oracle_root(entries[:k])]


def oracle_proof(m: int, entries: list[bytes], *, whole: bool = True) -> list[bytes]:
    """SUBPROOF of section 2.1.4.1."""
    if m == len(entries):
        return [] if whole else [oracle_root(entries)]
    k = split(len(entries))
    if m <= k:
        return [*oracle_proof(m, entries[:k], whole=whole), oracle_root(entries[k:])]
    return [*oracle_proof(m - k, entries[k:], whole=False), oracle_root(entries[:k])]


def split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def test_the_published_roots() -> None:
    tree = tree_of(ENTRIES)
    assert [root(size, tree.node).hex() for size in range(1, 9)] == ROOTS
    assert root(0, tree.node) == EMPTY_ROOT


def test_the_published_proofs() -> None:
    tree = tree_of(ENTRIES)
    assert [each.hex() for each in inclusion_proof(5, 8, tree.node)] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    assert [each.hex() for each in consistency_proof(6, 8, tree.node)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@pytest.mark.parametrize("size", range(1, 40))
def test_every_proof_is_the_definition_s_and_holds(size: int) -> None:
    entries = [bytes([each]) for each in range(size)]
    tree = tree_of(entries)
    whole = root(size, tree.node)
    assert whole == oracle_root(entries)
    for index in range(size):
        proof = inclusion_proof(index, size, tree.node)
        assert proof == oracle_path(index, entries)
        verify_inclusion(leaf_hash(entries[index]), index, size, proof, whole)
    for old in range(1, size + 1):
        proof = consistency_proof(old, size, tree.node)
        assert proof == oracle_proof(old, entries)
        verify_consistency(old, root(old, tree.node), size, whole, proof)
    verify_consistency(0, EMPTY_ROOT, size, whole, consistency_proof(0, size, tree.node))


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=70), st.data())
def test_a_history_that_differs_anywhere_has_no_proof(
    entries: list[bytes], data: st.DataObject
) -> None:
    old = data.draw(st.integers(1, len(entries)))
    changed = data.draw(st.integers(0, old - 1))
    forged = list(entries)
    forged[changed] += b"!"
    ours, theirs = tree_of(entries), tree_of(forged)
    size = len(entries)
    proof = consistency_proof(old, size, theirs.node)
    with pytest.raises(IntegrityError, match="does not begin with"):
        verify_consistency(old, root(old, ours.node), size, root(size, theirs.node), proof)
    path = inclusion_proof(changed, size, theirs.node)
    with pytest.raises(IntegrityError, match="is not in the log"):
        verify_inclusion(leaf_hash(entries[changed]), changed, size, path, root(size, theirs.node))


@given(st.integers(1, 70), st.data())
def test_a_damaged_proof_is_refused(size: int, data: st.DataObject) -> None:
    tree = tree_of([bytes([each]) for each in range(size)])
    whole = root(size, tree.node)
    old = data.draw(st.integers(1, size))
    index = data.draw(st.integers(0, size - 1))
    for proof, check in (
        (
            consistency_proof(old, size, tree.node),
            lambda path: verify_consistency(old, root(old, tree.node), size, whole, path),
        ),
        (
            inclusion_proof(index, size, tree.node),
            lambda path: verify_inclusion(tree.node(0, index), index, size, path, whole),
        ),
    ):
        check(proof)
        for damaged in ([*proof, whole], [whole, *proof], proof[:-1], proof[1:]):
            if damaged != proof:
                with pytest.raises(IntegrityError):
                    check(damaged)
        for at, known in enumerate(proof):
            flipped = bytes([known[0] ^ 1]) + known[1:]
            with pytest.raises(IntegrityError):
                check([*proof[:at], flipped, *proof[at + 1 :]])


def test_hashes_of_other_lengths_prove_nothing() -> None:
    """Two hashes that are cut in another place are the same bytes under a node's hash."""
    leaves = [leaf_hash(each) for each in (b"a", b"b", b"c")]
    ab, c = node_hash(*leaves[:2]), leaves[2]
    old = node_hash(ab, c)
    forged, more = leaf_hash(b"forged"), leaf_hash(b"more")
    new = node_hash(ab + c, node_hash(b"", forged + more))
    with pytest.raises(IntegrityError):
        verify_consistency(3, old, 4, new, [b"", forged + more, ab + c])
    with pytest.raises(IntegrityError):
        verify_inclusion(forged, 2, 4, [more, ab + c], new)
    with pytest.raises(IntegrityError):
        verify_inclusion(leaves[0], 0, 2, [b""] * 500, ab)


@given(
    st.integers(-2, 1 << 70),
    st.integers(-2, 1 << 70),
    st.lists(st.binary(min_size=32, max_size=32), max_size=140),
)
def test_no_number_of_a_peer_s_is_too_large(old: int, new: int, proof: list[bytes]) -> None:
    with pytest.raises(IntegrityError):
        verify_consistency(old, b"a" * 32, new, b"b" * 32, proof)
    with pytest.raises(IntegrityError):
        verify_inclusion(b"c" * 32, old, new, proof, b"b" * 32)

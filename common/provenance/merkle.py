"""Merkle tree of an append-only log: roots, inclusion and consistency proofs (RFC 9162, section 2).

Pure: where hashes are kept is the caller's. A subtree is perfect if it has 2^level leaves and
begins at a multiple of that; ``Node(level, index)`` returns the hash of the index-th perfect
subtree of a level, 32 bytes, level 0 being the leaves. Every root and proof is made of these, so
that a log of n entries reads O(log² n) of them. Proofs are lists of 32-byte hashes; a verifier
trusts none of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from rootstock.common.errors import IntegrityError

HASH_BYTES = 32

MAX_PROOF = 2 * 64
"""Hashes of the longest proof about a log of fewer than 2^64 entries."""

EMPTY_ROOT = hashlib.sha256(b"").digest()

Node = Callable[[int, int], bytes]


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of an entry: SHA-256 over 0x00 and its bytes."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a subtree with these two below it: SHA-256 over 0x01 and both."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def completed(index: int, leaf: bytes, node: Node) -> list[bytes]:
    """Return the hashes of the perfect subtrees that a new leaf is the last of, by level.

    The first is the leaf's own. `node` is asked for subtrees of earlier leaves only.
    """
    hashes = [leaf]
    while index & 1:
        level = len(hashes) - 1
        hashes.append(node_hash(node(level, index - 1), hashes[-1]))
        index >>= 1
    return hashes


def root(size: int, node: Node) -> bytes:
    """Return the root of the first `size` leaves."""
    return _range_root(0, size, node) if size else EMPTY_ROOT


class Tree:
    """A tree in memory."""

    def __init__(self) -> None:
        self._hashes: list[list[bytes]] = []

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self._hashes)

    def append(self, leaf: bytes) -> list[bytes]:
        """Add a leaf's hash; return the hashes that it completes, see `completed`."""
        hashes = completed(self.size, leaf, self.node)
        self._hashes.append(hashes)
        return hashes

    def root(self, size: int | None = None) -> bytes:
        """Return the root of the first `size` leaves, of all by default."""
        return root(self.size if size is None else size, self.node)

    def node(self, level: int, index: int) -> bytes:
        """See `Node`."""
        return self._hashes[(index + 1 << level) - 1][level]


def inclusion_proof(index: int, size: int, node: Node) -> list[bytes]:
    """Return the proof that leaf `index` is in the tree of the first `size` leaves."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(_range_root(middle, end, node))
            end = middle
        else:
            proof.append(_range_root(start, middle, node))
            start = middle
    return proof[::-1]


def consistency_proof(old: int, new: int, node: Node) -> list[bytes]:
    """Return the proof that the tree of `old` leaves is the beginning of that of `new`."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} leaves is no beginning of one of {new}")
    proof: list[bytes] = []
    start, end = 0, new
    while 0 < old < end:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(_range_root(middle, end, node))
            end = middle
        else:
            proof.append(_range_root(start, middle, node))
            start = middle
    if 0 < old < new and start:  # else the old root itself is the subtree; the verifier has it
        proof.append(_range_root(start, end, node))
    return proof[::-1]


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes
) -> None:
    """Check that a leaf's hash is at `index` in the tree of `size` leaves with that root.

    IntegrityError if not (RFC 9162, section 2.1.3.2).
    """
    wrong = IntegrityError(f"entry {index} is not in the log of {size} entries as its head says")
    if not (0 <= index < size and _hashes(leaf, expected, *proof)):
        raise wrong
    rest = list(proof)
    found, last = leaf, size - 1
    while last:
        if index & 1 or index == last:
            if not rest:
                raise wrong
            found = node_hash(rest.pop(0), found)
            while not index & 1:
                index, last = index >> 1, last >> 1
        else:
            if not rest:
                raise wrong
            found = node_hash(found, rest.pop(0))
        index, last = index >> 1, last >> 1
    if rest or found != expected:
        raise wrong


def verify_consistency(
    old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that a log of `old` entries with that root was only appended to since.

    IntegrityError if not (RFC 9162, section 2.1.4.2).
    """
    wrong = IntegrityError(f"the log of {new} entries does not begin with the {old} known ones")
    if not (0 <= old <= new and _hashes(old_root, new_root, *proof)):
        raise wrong
    if old in (0, new):
        expected = EMPTY_ROOT if old == 0 else new_root
        if proof or old_root != expected:
            raise wrong
        return
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise wrong
    index, last = old - 1, new - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    old_found = new_found = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise wrong
        if index & 1 or index == last:
            old_found = node_hash(sibling, old_found)
            new_found = node_hash(sibling, new_found)
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            new_found = node_hash(new_found, sibling)
        index, last = index >> 1, last >> 1
    if last or (old_found, new_found) != (old_root, new_root):
        raise wrong


def _hashes(*found: bytes) -> bool:
    """Say whether they are hashes, and no more than a proof has, with two besides.

    Of other lengths they could divide what a node's hash is over in another place.
    """
    return len(found) <= MAX_PROOF + 2 and all(len(each) == HASH_BYTES for each in found)


def _split(size: int) -> int:
    """Return the largest power of two below a size above 1."""
    return 1 << (size - 1).bit_length() - 1


def _range_root(start: int, end: int, node: Node) -> bytes:
    size = end - start
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return node(level, start >> level)
    middle = start + _split(size)
    return node_hash(_range_root(start, middle, node), _range_root(middle, end, node))

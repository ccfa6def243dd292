"""A lab notices a history that was rewritten, whichever way, and goes on when it is told to."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootstock.common.errors import IdentityError, IntegrityError, NotFoundError
from rootstock.common.identity.keys import SigningKey, key_id
from rootstock.common.provenance.log import LogHead
from rootstock.common.provenance.merkle import Tree, consistency_proof, leaf_hash
from rootstock.site_agent.coordinator_log import CoordinatorLog, LogAnswer

KEY = SigningKey.generate()


class FakeCoordinator:
    """Answers from any list of entries that a test gives it."""

    def __init__(self, *entries: str, key: SigningKey = KEY) -> None:
        self.entries, self.key = list(entries), key

    def head(self, size: int = 0) -> bytes:
        size = min(size or len(self.entries), len(self.entries))
        net, at = key_id(self.key.public_key), f"2026-01-01T00:00:{size:02}.000+00:00"
        head = LogHead(size=size, root=self._tree().root(size).hex(), at=at, net=net)
        return head.sealed(self.key)

    def fetch(self, known: int, size: int) -> LogAnswer:
        size = min(size or len(self.entries), len(self.entries))
        proof = [] if known > size else consistency_proof(known, size, self._tree().node)
        return LogAnswer(self.head(size), proof)

    def _tree(self) -> Tree:
        tree = Tree()
        for entry in self.entries:
            tree.append(leaf_hash(entry.encode()))
        return tree


@pytest.fixture
def log(tmp_path: Path) -> CoordinatorLog:
    return CoordinatorLog(tmp_path, KEY.public_key)


def size(log: CoordinatorLog) -> int:
    known = log.known()
    assert known is not None
    return log.head(known.head).size


def test_a_log_that_grows_is_followed(log: CoordinatorLog) -> None:
    centre = FakeCoordinator("a", "b", "c")
    log.follow(centre.fetch)
    assert size(log) == 3
    log.follow(centre.fetch)
    centre.entries += ["d", "e"]
    receipt = centre.head().decode()
    centre.entries.append("f")
    log.follow(centre.fetch, receipt)
    assert size(log) == 5
    log.follow(centre.fetch)
    assert size(log) == 6
    known = log.known()
    assert known is not None
    assert known.rewrites == ()
    with pytest.raises(NotFoundError, match="there is nothing to accept"):
        log.accept()


@pytest.mark.parametrize(
    ("history", "said"),
    [
        ("ab", "its log of 2 entries, signed .* does not continue that of 3"),
        ("abx", "its log of 3 entries"),
        ("xbc", "its log of 3 entries"),
        ("abxde", "its log of 5 entries"),
        ("acbdefgh", "its log of 8 entries"),
    ],
    ids=["cut", "another end", "another beginning", "forked", "another order"],
)
def test_a_log_that_was_rewritten_is_noticed_until_it_is_accepted(
    log: CoordinatorLog, history: str, said: str
) -> None:
    honest, forged = FakeCoordinator(*"abc"), FakeCoordinator(*history)
    log.follow(honest.fetch)
    for _ in range(2):  # it stays noticed
        with pytest.raises(
            IdentityError, match=rf"(?s){said}.*Nothing more is shipped.*accept-log"
        ):
            log.follow(forged.fetch)
        known = log.known()
        assert known is not None
        assert known.rewrite is not None
        assert len(known.rewrites) == 1
        # Signed evidence of both.
        assert log.head(known.rewrite.known).size == 3
        assert log.head(known.rewrite.found).size == len(history)
        assert size(log) == 3
    assert log.accept().ended == "accepted"
    forged.entries.append("z")
    log.follow(forged.fetch)
    assert size(log) == len(history) + 1
    with pytest.raises(IdentityError):  # the way back is a rewrite, too
        log.follow(honest.fetch)


def test_a_coordinator_that_found_its_database_again(log: CoordinatorLog) -> None:
    log.follow(FakeCoordinator(*"abc").fetch)
    with pytest.raises(IdentityError):
        log.follow(FakeCoordinator(*"ab").fetch)
    log.follow(FakeCoordinator(*"abcd").fetch)
    known = log.known()
    assert known is not None
    assert [each.ended for each in known.rewrites] == ["continued"]
    assert size(log) == 4


def test_a_receipt_that_is_in_no_log(log: CoordinatorLog) -> None:
    """The coordinator signs one head for this lab, and shows the world another."""
    shown = FakeCoordinator(*"abcd")
    log.follow(FakeCoordinator(*"ab").fetch)
    receipt = FakeCoordinator(*"abxy").head().decode()
    with pytest.raises(IdentityError, match="does not continue"):
        log.follow(shown.fetch, receipt)
    known = log.known()
    assert known is not None
    assert known.rewrite is not None
    assert known.rewrite.known == receipt
    assert size(log) == 2
    # Nor is it forgotten when the log goes on as it was shown: the receipt is still in none.
    shown.entries.append("e")
    for _ in range(2):
        with pytest.raises(IdentityError, match="does not continue"):
            log.follow(shown.fetch)
    known = log.known()
    assert known is not None
    assert known.rewrite is not None
    assert log.head(known.rewrite.found).size == 4  # what was found first
    with pytest.raises(IdentityError):  # one that has the receipt, and not what was known before
        log.follow(FakeCoordinator(*"xbxyz").fetch)
    log.follow(FakeCoordinator(*"abxyz").fetch)  # one that has both is mended
    assert size(log) == 5


def test_a_head_that_the_coordinator_did_not_sign(log: CoordinatorLog, tmp_path: Path) -> None:
    other = FakeCoordinator(*"abc", key=SigningKey.generate())
    with pytest.raises(IdentityError, match="check what answers at the coordinator's address"):
        log.follow(other.fetch)
    with pytest.raises(IdentityError, match="check what answers"):
        log.follow(lambda *_: LogAnswer(b"\xff{", []))
    assert log.known() is None
    log.follow(FakeCoordinator(*"abc").fetch)
    # What is kept here is signed as well: a changed file is no other memory.
    (path,) = (tmp_path / "log-heads").iterdir()
    other_log = CoordinatorLog(tmp_path / "other", other.key.public_key)
    other_log.follow(other.fetch)
    (theirs,) = (tmp_path / "other" / "log-heads").iterdir()
    path.write_bytes(theirs.read_bytes())
    with pytest.raises(IntegrityError, match="is signed with key"):
        log.follow(FakeCoordinator(*"abc").fetch)

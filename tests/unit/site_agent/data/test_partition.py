from collections import Counter

import pytest

from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.data import partition
from rootstock.site_agent.data.datasets import open_dataset
from rootstock.site_agent.data.images import LabData
from tests.support import digits_lab
from tests.support.checkout import CHECKOUT

pytestmark = pytest.mark.slow

VOC = CHECKOUT.parent / "shared" / "data" / "voc2012-animals"
ANIMALS = ("cat", "cow", "dog", "horse", "sheep")


def raise_it(error: Exception) -> None:
    raise error


def all_keys(data: LabData) -> list[str]:
    return [key for part in (data.training, data.holdout, data.validation) for key in part.keys]


def test_no_digit_is_at_two_labs_and_none_is_left_out() -> None:
    labs = [all_keys(digits_lab.data(digit)) for digit in range(5)]
    counts = Counter(key for lab in labs for key in lab)
    assert max(counts.values()) == 1
    # Every image of the digits 0 to 9 is somewhere: five categories, five shares of the rest.
    assert len(counts) == 1797


@pytest.mark.skipif(not VOC.is_dir(), reason="../shared/data/voc2012-animals is not here")
def test_no_photograph_is_at_two_labs() -> None:
    labels = open_dataset(DataConfig(kind="voc", path=VOC)).labels(frozenset(ANIMALS), raise_it)
    sides: list[list[int]] = []
    for number, animal in enumerate(ANIMALS):
        config = DataConfig(kind="voc", path=VOC, reserve=0.5, part=number + 1, parts=5)
        sides += partition.select(labels, config, animal, [a for a in ANIMALS if a != animal])
    counts = Counter(labels[index][0] for side in sides for index in side)
    assert max(counts.values()) == 1
    assert all(len(side) > 100 for side in sides)


def test_without_a_reserve_the_category_keeps_all_its_images() -> None:
    labels = [(f"{name}/{index}", name) for name in "ab" for index in range(500)]
    positive, negative = partition.select(
        labels, DataConfig(kind="digits", parts=2, part=2), "a", ["b"]
    )
    assert len(positive) == 500
    assert 200 < len(negative) < 300


def test_shares_are_even_and_follow_from_the_name_alone() -> None:
    shares = [partition.share(f"image-{n}", "part") for n in range(4000)]
    counts = Counter(int(share * 4) for share in shares)
    assert all(abs(count - 1000) < 120 for count in counts.values())
    # Pinned: labs with different versions must agree on it, or images would be at two of them.
    assert round(partition.share("image-0", "part"), 4) == 0.8826


def test_validation_and_holdout_are_balanced_and_disjoint() -> None:
    config = DataConfig(kind="digits", validation_fraction=0.3, holdout_fraction=0.2)
    positive, negative = list(range(100)), list(range(100, 120))
    training, holdout, validation = partition.split(positive, negative, config)
    assert len(validation) == 12
    assert sum(index < 100 for index in validation) == 6
    assert len(holdout) == 6
    assert sorted([*training, *holdout, *validation]) == list(range(120))

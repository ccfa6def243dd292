"""Class names of all languages: found exactly, or refused with what they may mean."""

from __future__ import annotations

import unicodedata

import pytest

from rootstock.common.errors import DataError
from rootstock.site_agent.data.class_names import find_class, same_but_for_case, slug

NFC, NFD = (unicodedata.normalize(form, "Kühe") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("wanted", "classes", "found"),
    [
        ("cat", ["CAT", "cat"], "cat"),
        ("CAT", ["CAT", "cat"], "CAT"),
        ("cat", ["Cat", "dog"], "Cat"),
        ("犬", ["猫", "犬", "馬"], "犬"),
        ("КОШКА", ["кошка", "собака"], "кошка"),
        ("straße", ["STRASSE", "Weg"], "STRASSE"),
        (NFC, [NFD, "dog"], NFD),
        (NFD, [NFC, "dog"], NFC),
        (NFC, [NFC, NFD], NFC),
        ("ankle-boot", ["Ankle boot", "Bag"], "Ankle boot"),
        ("Ankle boot", ["ankle-boot", "bag"], "ankle-boot"),
        ("t-shirt-top", ["T-shirt/top", "Dress"], "T-shirt/top"),
        ("T-shirt/top", ["t-shirt-top", "dress"], "t-shirt-top"),
        ("0", ["0 - zero", "1 - one"], "0 - zero"),
        ("grade-1", ["Grade 1+", "Grade 2"], "Grade 1+"),
        ("Grade 1-", ["Grade 1+", "Grade 1-"], "Grade 1-"),
        ("+", ["+", "-"], "+"),
    ],
)
def test_a_class_is_found(wanted: str, classes: list[str], found: str) -> None:
    assert find_class(wanted, classes, "data.class_name") == found


@pytest.mark.parametrize(
    ("wanted", "classes", "said"),
    [
        ("鳥", ["猫", "犬", "馬"], "no class '鳥'; it has 猫, 犬, 馬"),
        ("птица", ["кошка", "собака"], "no class 'птица'; it has кошка, собака"),
        ("grade 1", ["Grade 1+", "Grade 1-"], r"'grade 1' may be Grade 1\+ or Grade 1-; write it"),
        ("grade-1", ["Grade 1+", "Grade 1-"], r"'grade-1' may be Grade 1\+ or Grade 1-; write it"),
        ("cat", ["CAT", "Cat", "dog"], "'cat' may be CAT or Cat; write it exactly"),
        ("KÜHE", [NFC, NFD], r"'KÜHE' may be Kühe or Ku\\u0308he; write it exactly"),
        ("Kähe", ["Kühe", "dog"], "no class 'Kähe'"),
        ("C#", ["C++", "C"], "no class 'C#'"),
        ("!", ["?", "%"], "no class '!'"),
        ("🐈", ["🐕", "🐎"], "no class '🐈'"),
        ("", ["?", "%"], "no class ''"),
        ("a-b", ["a b", "a_b", "c"], "'a-b' may be a b or a_b"),
    ],
)
def test_what_may_mean_several_classes_or_none_is_refused(
    wanted: str, classes: list[str], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        find_class(wanted, classes, "data.rest")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Ankle boot", "ankle-boot"), ("T-shirt/top", "t-shirt-top"), ("0 - zero", "0"),
     ("Kühe", "kühe"), ("猫", "猫"), ("++", "")],
)  # fmt: skip
def test_slugs(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_names_that_people_take_for_one() -> None:
    assert same_but_for_case("CAT", ["CAT", "Cat", "dog"]) == ["Cat"]
    assert same_but_for_case(NFC, [NFC, NFD]) == [NFD]

"""Exit codes and status codes: each class of error has one, everywhere the same."""

from __future__ import annotations

import re

from rootstock.common import errors
from tests.contracts.promises import require_promise
from tests.contracts.surface.errors import CLASSES, NAME, present
from tests.support.checkout import CHECKOUT

OTHERS = {0, 1, 130}
"""Codes of no class: done, a fault of ours, interrupted."""


def test_classes_and_codes_are_as_recorded() -> None:
    require_promise(NAME, present())


def test_the_readme_lists_every_code() -> None:
    said = re.search(
        r"^Exit codes: (.*?)\.\n", (CHECKOUT / "README.md").read_text("utf-8"), flags=re.M | re.S
    )
    assert said is not None
    listed = {int(code) for code in re.findall(r"(?:^|,\s)(\d+) ", said.group(1))}
    assert listed == {kind.exit_code for kind in CLASSES} | OTHERS


def test_the_tree_is_drawn_as_it_is() -> None:
    drawn = re.findall(r"── (\w+)(?: \((\w+)\) +exit (\d+))?", errors.__doc__ or "")
    kinds = {kind.__name__: kind for kind in CLASSES}
    assert {name for name, _, _ in drawn} | {"RootstockError"} == kinds.keys()
    for name, builtin, code in drawn:
        if code:
            assert builtin in {base.__name__ for base in kinds[name].__bases__}
            assert int(code) == kinds[name].exit_code

"""Tests share helpers by tests/support, not with each other; the product knows no tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.checkout import CHECKOUT

PRODUCT = ("common", "coordinator", "deploy", "protos", "rootstock", "site_agent")


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted name of everything that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or '.'}.{alias.name}" for alias in node.names)


def breaches(folder: str, forbidden: str) -> list[str]:
    """Name imports of modules one of whose parts starts with what is forbidden."""
    return [
        f"{path.relative_to(CHECKOUT)} imports {name}"
        for path in sorted((CHECKOUT / folder).rglob("*.py"))
        for name in imports(path)
        if name.startswith("tests.") and any(part.startswith(forbidden) for part in name.split("."))
    ]


def test_tests_import_no_test_and_no_conftest() -> None:
    found = [*breaches("tests", "test_"), *breaches("tests", "conftest")]
    assert found == [], "what tests share goes to tests/support"


def test_the_product_imports_no_test() -> None:
    assert [each for folder in PRODUCT for each in breaches(folder, "tests")] == []

"""Tests share helpers by tests/support, not with each other; the product knows no tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
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


def test_no_files_import_each_other_in_a_circle() -> None:
    """Contracts on packages hold the layers; this holds files, the benchmarks' too."""
    paths = [p for folder in (*PRODUCT, "tests") for p in sorted((CHECKOUT / folder).rglob("*.py"))]
    modules = {module_of(path): path for path in paths if not path.name.endswith("_grpc.py")}
    unsorted = {
        module: {known(name, modules) for name in imports(path)} - {None, module}
        for module, path in modules.items()
    }
    try:
        TopologicalSorter(unsorted).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle: {' imports '.join(error.args[1])}") from error


def module_of(path: Path) -> str:
    """Name a file as it is imported."""
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    top = () if parts[0] in ("tests", "rootstock") else ("rootstock",)
    return ".".join((*top, *(part for part in parts if part != "__init__")))


def known(name: str, modules: Mapping[str, Path]) -> str | None:
    """Return the file that an imported name is of, or in."""
    return next((each for each in (name, name.rpartition(".")[0]) if each in modules), None)

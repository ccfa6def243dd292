"""show, log and diff on nets in a state folder, as an operator runs them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rootstock.common.errors import NotFoundError
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.nets.graph import Edge, ModuleRef
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.nets.tree_documents import tree_digest
from rootstock.deploy.cli.net.show import net_lines
from tests.support.grown_net import CLASSIFICATION, NUMBERS, SPEC, Command, GrownNet
from tests.support.merge_records import net


def test_show_prints_a_cell_for_each_category_and_task(grown: GrownNet, command: Command) -> None:
    assert command.text("net", "show", "-c", grown.config).splitlines() == [
        "animals, net version 3: error in % on each lab's validation data",
        "",
        "category  classification  segmentation",
        "──────────────────────────────────────",
        "cat                  2.5           2.5",
        "cow                  4.0           4.0",
        "dog                  1.2             –",
        "",
        "3 categories, 2 tasks, 5 of 6 joined (– not)",
    ]


def test_show_of_an_older_version(grown: GrownNet, command: Command) -> None:
    printed = command.text("net", "show", "-c", grown.config, "--version", 2)
    assert "net version 2" in printed
    assert "cow" in printed
    assert "dog" not in printed
    with pytest.raises(NotFoundError, match="no net version 4"):
        command.text("net", "show", "-c", grown.config, "--version", 4)


def test_show_as_json(grown: GrownNet, command: Command) -> None:
    printed = command.json("net", "show", "-c", grown.config)
    assert printed["version"] == 3
    assert printed["tree"] == tree_digest(grown.tree)
    assert printed["categories"] == ["cat", "cow", "dog"]
    joins = {(join["category"], join["task"]): join for join in printed["joins"]}
    assert joins["dog", "classification"]["calibration"] == {"scale": 0.5, "bias": 1.0}
    assert joins["cat", "classification"]["adapter"] is None
    assert ("dog", "segmentation") not in joins


def test_show_names_extractors_of_other_architectures(grown: GrownNet, command: Command) -> None:
    assert command.json("net", "show", "-c", grown.config)["extractors"] == {}
    assert "of other architectures" not in command.text("net", "show", "-c", grown.config)
    extractor = ArchitectureSpec(
        name="mobilenetv2", split="block4", settings={"input_size": 32, "output_stride": 8}
    )
    spec = SPEC.model_copy(update={"extractor": extractor})
    ref = ModuleRef(
        blob=grown.put(initial_modules(spec, [CLASSIFICATION], 4)[0]),
        architecture=spec,
        submission="0" * 64,
    )
    edge = Edge(category="emu", task="classification", error=3.0)
    grown.tree = grown.tree.with_category("emu", ref).with_edge(edge)
    grown.commit("emu", **NUMBERS)
    shown = command.json("net", "show", "-c", grown.config)
    assert shown["extractors"] == {"emu": "mobilenetv2"}
    printed = command.text("net", "show", "-c", grown.config)
    assert "category modules of other architectures: 1 mobilenetv2" in printed


@pytest.mark.parametrize("categories", [1, 50, 500])
@pytest.mark.parametrize("tasks", [1, 3, 16])
def test_tables_keep_to_eighty_columns(categories: int, tasks: int) -> None:
    names = [f"{'long-name-' * (place % 6)}c{place}" for place in range(categories)]
    tree = net(names, [f"{'task-' * (place % 5)}t{place}" for place in range(tasks)])
    lines = list(net_lines(tree))
    assert max(map(len, lines)) <= 80
    rows = sum(line.startswith(("long-", "c")) and "category" not in line for line in lines)
    assert rows % categories == 0
    cells = sum(line.count(".5") for line in lines)
    assert cells == categories * tasks


def test_500_categories_are_shown_in_under_a_second(tmp_path: Path, command: Command) -> None:
    grown = GrownNet(tmp_path)
    grown.tree = net([f"category-{place}" for place in range(500)], ["classification", "counting"])
    grown.commit("category-0")
    command.text("net", "show", "-c", grown.config)  # imports are not what is measured
    start = time.process_time()  # work: a busy machine makes it wait
    printed = command.text("net", "show", "-c", grown.config)
    assert time.process_time() - start < 1.0
    assert "500 categories, 2 tasks, 1000 of 1000 joined" in printed


def test_log_is_newest_first_with_the_merge_s_numbers(grown: GrownNet, command: Command) -> None:
    lines = command.text("net", "log", "-c", grown.config).splitlines()
    digests = [version["digest"][:12] for version in _versions(grown, command)]
    errors = (
        "    error in %: teacher 0.5  no adapter 52.0  zero samples 1.9  few samples 1.0"
        "  refined 1.2  104 s"
    )
    assert lines == [
        f"version 3  {digests[0]}  2026-01-02 03:04:03 UTC",
        "    new-category: dog → classification from dog-lab, by the adapter refined at the lab",
        errors,
        f"version 2  {digests[1]}  2026-01-02 03:04:02 UTC",
        "    new-category: cow → classification from cow-lab, by the adapter refined at the lab",
        errors,
        f"version 1  {digests[2]}  2026-01-02 03:04:01 UTC",
        "    found: cat → classification from cat-lab",
        "    error in %: teacher 2.5",
    ]


def test_log_begins_where_it_is_told_and_ends_there(grown: GrownNet, command: Command) -> None:
    assert [v["number"] for v in _versions(grown, command)] == [3, 2, 1]
    assert [v["number"] for v in _versions(grown, command, "--version", "2")] == [2, 1]
    assert [v["number"] for v in _versions(grown, command, "-n", "2")] == [3, 2]


def _versions(grown: GrownNet, command: Command, *more: str) -> list[dict[str, Any]]:
    versions: list[dict[str, Any]] = command.json("net", "log", "-c", grown.config, *more)[
        "versions"
    ]
    return versions


def test_diff_shows_what_was_added(grown: GrownNet, command: Command) -> None:
    lines = command.text("net", "diff", "-c", grown.config, 2).splitlines()
    module = grown.tree.category_modules["dog"].blob.digest[:12]
    adapter = grown.tree.edge("dog", "classification").adapter
    assert adapter is not None
    assert lines == [
        "net version 2 → 3",
        f"+ category module dog  {module}",
        f"+ join dog → classification  error 1.2 %, adapter {adapter.blob.digest[:12]}",
        "2 added",
    ]


def test_diff_back_to_an_ancestor_shows_what_was_removed(grown: GrownNet, command: Command) -> None:
    found = command.json("net", "diff", "-c", grown.config, 3, 1)
    assert [row["category"] for row in found["categories"]["removed"]] == ["cow", "dog"]
    removed = {(row["category"], row["task"]) for row in found["joins"]["removed"]}
    assert removed == {
        ("cow", "classification"),
        ("cow", "segmentation"),
        ("dog", "classification"),
    }
    assert found["categories"]["added"] == found["joins"]["added"] == []
    forth = command.json("net", "diff", "-c", grown.config, 1, 3)
    assert forth["joins"]["added"] == found["joins"]["removed"]
    assert "- join dog" in command.text("net", "diff", "-c", grown.config, 3, 1)


def test_diff_shows_a_join_that_is_another(grown: GrownNet, command: Command) -> None:
    edges = [
        edge if edge.category != "dog" else edge.model_copy(update={"error": 7.0, "adapter": None})
        for edge in grown.tree.edges
    ]
    grown.tree = grown.tree.model_copy(update={"edges": tuple(edges)})
    grown.commit("sow")
    printed = command.text("net", "diff", "-c", grown.config, 3, 4)
    assert "~ join dog → classification  error 1.2 % → error 7.0 %, adapter" in printed
    assert "→ no adapter" in printed
    (changed,) = command.json("net", "diff", "-c", grown.config, 3, 4)["joins"]["changed"]
    assert (changed["before"]["error"], changed["after"]["error"]) == (1.25, 7.0)


def test_diff_of_a_version_with_itself(grown: GrownNet, command: Command) -> None:
    printed = command.text("net", "diff", "-c", grown.config, 2, 2)
    assert printed.splitlines() == ["net version 2 → 2", "no difference"]


@pytest.mark.parametrize("argv", [("show",), ("log",), ("diff", "1")])
def test_reading_needs_neither_torch_nor_mlflow_nor_ray(
    grown: GrownNet, argv: tuple[str, ...]
) -> None:
    code = (
        "import sys; from rootstock.deploy.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print(sorted({'torch', 'mlflow', 'ray', 'matplotlib'} & sys.modules.keys()))"
    )
    name, *rest = argv
    done = subprocess.run(
        [sys.executable, "-c", code, "net", name, "-c", str(grown.config), *rest],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"

"""Two tasks in one net, end to end: labs with masks, and one that has labels of images only."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rootstock.deploy.federation.config import FederationConfig
from rootstock.protos.rootstock.operator.v1.operator_pb2 import GetStatusResponse
from tests.support.federation_processes import QUICK, ROOTSTOCK, Running
from tests.support.voc_layout import write_voc

pytestmark = pytest.mark.e2e

TASKS = ("classification", "segmentation")
ENDED = ("merged", "rejected", "failed")


def federation_of(root: Path) -> FederationConfig:
    """The cat's lab founds the net with one task; the others bring both."""
    data = {"kind": "voc", "path": str(root), "context": 0.4, "reserve": 0.4, "parts": 3}
    animals = ("cat", "dog", "cow")
    return FederationConfig.model_validate(
        {
            "net": "discs",
            "coordinator": {
                "plan": {
                    "architecture": {
                        "name": "small-vgg",
                        "split": "pool1",
                        "settings": {"input_size": 32, "width": 8},
                    },
                    "tasks": [
                        {"name": "classification"},
                        {"name": "segmentation", "kind": "binary-segmentation"},
                    ],
                },
                "server": {"join_listen": "127.0.0.1:0"},
                "acceptance": {"max_error": 100.0, "max_above_teacher": 100.0},
                "distillation": QUICK,
                "segmentation": {"teaching": {"steps": 10, "sample_views": 16, "synthetic": 8}},
            },
            "site": {
                "share_samples": 4,
                "threads": 1,
                "data": {**data, "rest": list(animals)},
                "training": {"epochs": 4, "batch_size": 8, "learning_rate": 3e-3},
                "refinement": {"steps": 20},
            },
            "sites": [
                {
                    "site": f"{animal}-lab",
                    "category": animal,
                    "data": {"part": part},
                    **({"tasks": ["classification"]} if animal == "cat" else {}),
                }
                for part, animal in enumerate(animals, start=1)
            ],
        }
    )


def ended(count: int) -> Callable[[GetStatusResponse], bool]:
    def done(answer: GetStatusResponse) -> bool:
        merges = [merge for merge in answer.merges if merge.state in ENDED and merge.logged]
        return len(merges) >= count

    return done


def test_both_tasks_of_a_category_are_merged(
    federation: Callable[[FederationConfig], Running], tmp_path: Path
) -> None:
    root = write_voc(tmp_path / "voc", {"cat": 30, "dog": 30, "cow": 30})
    running = federation(federation_of(root))
    running.start_coordinator()
    running.start_site("cat-lab")
    running.until("the founding", ended(1))
    running.start_site("dog-lab")
    running.start_site("cow-lab")
    running.until("both classifications", ended(3))
    answer = running.until("both segmentations", ended(5))

    assert [(m.category, m.task, m.state) for m in answer.merges if m.state != "merged"] == []
    rows = {(m.category, m.task): m for m in answer.merges}
    both = [(animal, task) for animal in ("dog", "cow") for task in TASKS]
    assert rows.keys() == {("cat", "classification"), *both}
    segmentations = [rows[animal, "segmentation"] for animal in ("dog", "cow")]
    # Neither lab found the task in the net; the second to end is transplanted onto the first's.
    assert sorted(merge.operation for merge in segmentations) == ["new-category", "new-task"]
    (joined,) = [merge for merge in segmentations if merge.operation == "new-category"]
    numbers = dict(joined.numbers)
    for name in ("teacher", "no_adapter", "zero_sample", "few_sample", "refined"):
        assert 0 <= numbers[f"{name}_error"] <= 100
        assert 0 <= numbers[f"{name}_mean_iou"] <= 100
    assert numbers["few_samples"] == 4
    assert not any("mean_iou" in name for name in rows["dog", "classification"].numbers)

    config = tmp_path / "configuration" / "coordinator.toml"
    verified = subprocess.run(
        [*ROOTSTOCK, "net", "verify", "--json", "--config", str(config)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    well = {"ok": True, "version": 5, "unsigned": 0, "problems": []}
    assert json.loads(verified.stdout) == well
    export = ["net", "export", "--category", joined.category, "--task", "segmentation"]
    out = tmp_path / "net.safetensors"
    done = subprocess.run(
        [*ROOTSTOCK, *export, "--out", str(out), "--config", str(config)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_lab_without_masks_says_what_it_lacks(
    federation: Callable[[FederationConfig], Running], tmp_path: Path
) -> None:
    root = write_voc(tmp_path / "voc", {"cat": 30, "dog": 30, "cow": 30})
    running = federation(federation_of(root))
    running.start_coordinator()
    running.until("the coordinator", lambda _: True)
    digits = tmp_path / "digits.toml"
    digits.write_text(
        f'site = "digits-lab"\ncategory = "zero"\ncoordinator = "127.0.0.1:{running.port}"\n'
        f'state = "{tmp_path / "digits"}"\ndata = {{ kind = "digits", class_name = "0" }}\n'
    )
    line = running.json("coordinator", "invite", "digits-lab")["command"].split()[1:]
    joining = [*ROOTSTOCK, *line, "--state", str(tmp_path / "digits")]
    subprocess.run([*joining, "--config", str(tmp_path / "joined.toml")], timeout=120, check=True)
    done = subprocess.run(
        [*ROOTSTOCK, "site", "run", "--config", str(digits)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "task 'segmentation' is of kind 'binary-segmentation'" in done.stderr
    assert "data.kind = 'digits'" in done.stderr
    assert "tasks = ['classification']" in done.stderr

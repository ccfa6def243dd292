"""What `bench poison` tells: each attack, the check that stops it, and honest nets refused."""

from __future__ import annotations

import torch

from tests.benchmarks.system.poison import shown
from tests.benchmarks.system.poison_cases import HONEST, PATCH, POISONS, patched


def test_every_attack_has_a_name_of_its_own() -> None:
    names = [poison.name for poison in (HONEST, *POISONS)]
    assert len(set(names)) == len(names)


def test_the_table_names_the_check_and_counts_honest_nets() -> None:
    rows = [
        {
            "poison": HONEST.name,
            "site": "lab-0",
            "end": "merged",
            "check": "",
            "true_error": 2.5,
        },
        {"poison": "zero g, founding", "site": "lab-one", "end": "refused", "check": "dead"},
    ]
    table = shown({"rows": rows, "false_refusals": 0, "waiting": 0, "honest": 1}).splitlines()
    assert table[2] == "| honest (lab-0) | merged | – | 2.5% | – | – |"
    assert table[3] == "| zero g, founding | refused | dead | – | – | – |"
    assert table[-1] == "Of 1 honest nets 0 were refused, 0 wait for the operator."


def test_the_patch_is_a_corner_of_a_copy() -> None:
    images = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    changed = patched(images)
    assert int((changed == 255).sum()) == 2 * PATCH**2
    assert int(images.sum()) == 0

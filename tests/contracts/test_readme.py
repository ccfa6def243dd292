"""What README and guides show is true: configurations are valid, code runs, paths exist."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rootstock.common.config import check
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.deploy.federation.config import merge
from rootstock.site_agent.config import SiteConfig
from tests.support.checkout import CHECKOUT

RECIPES = CHECKOUT / "site_agent/recipes/README.md"
CONFIGURATIONS = {"site.toml", "coordinator.toml", "FEDERATION.toml", "pyproject.toml"}
"""Whose own: of a reader, or of the project."""
GUIDES = (
    CHECKOUT / "README.md",
    RECIPES,
    CHECKOUT / "tests/benchmarks/README.md",
    CHECKOUT / "CONTRIBUTING.md",
    CHECKOUT / "ARCHITECTURE.md",
    CHECKOUT / "common/nets/README.md",
    CHECKOUT / "common/distillation/README.md",
    CHECKOUT / "common/distillation/pseudo_gradients/README.md",
    CHECKOUT / "common/artifacts/README.md",
)


def _blocks(language: str, guide: Path = GUIDES[0]) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", _text(guide), flags=re.M | re.S)


def _text(guide: Path) -> str:
    return guide.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "kind"), [("site.toml", SiteConfig), ("coordinator.toml", CoordinatorConfig)]
)
def test_configurations_are_valid(name: str, kind: type[SiteConfig | CoordinatorConfig]) -> None:
    (block,) = [block for block in _blocks("toml") if block.startswith(f"# {name}\n")]
    whole = tomllib.loads(block)
    check(whole, kind, source=name)
    besides = [b for b in _blocks("toml", RECIPES) if b.startswith(f"# {name}, these keys")]
    assert besides
    for block in besides:
        check(merge(whole, tomllib.loads(block)), kind, source=name)


def test_no_configuration_goes_unchecked() -> None:
    heads = [block.split("\n", 1)[0] for guide in GUIDES for block in _blocks("toml", guide)]
    assert {re.sub(", these keys besides$", "", head) for head in heads} == {
        "# site.toml", "# coordinator.toml"
    }  # fmt: skip
    # Those that are whole are the README's.
    assert len([head for head in heads if "," not in head]) == 2


def test_the_code_prints_what_it_says() -> None:
    (block,) = _blocks("python")
    said = re.search(r"^# prints: (.*)$", block, flags=re.M)
    assert said is not None
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, said.group(1)), done.stderr


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: str(guide.relative_to(CHECKOUT)))
def test_links_and_examples_lead_somewhere(guide: Path) -> None:
    links = [guide.parent / link for link in re.findall(r"\]\(([^)#:]+)", _text(guide))]
    named = re.findall(r"[\w-]+\.toml", _text(guide))
    links += [CHECKOUT / "deploy/examples" / name for name in named if name not in CONFIGURATIONS]
    assert links
    assert [str(link) for link in links if not link.exists()] == []

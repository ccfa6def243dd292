"""What the README shows is true: its configurations are valid, its code runs, its paths exist."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from common.config import check
from coordinator.config import CoordinatorConfig
from deploy.federation.config import merge
from site_agent.config import SiteConfig

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


@pytest.mark.parametrize(
    ("name", "kind"), [("site.toml", SiteConfig), ("coordinator.toml", CoordinatorConfig)]
)
def test_configurations_are_valid(name: str, kind: type[SiteConfig | CoordinatorConfig]) -> None:
    (block,) = [block for block in _blocks("toml") if block.startswith(f"# {name}\n")]
    whole = tomllib.loads(block)
    check(whole, kind, source=name)
    besides = [block for block in _blocks("toml") if block.startswith(f"# {name}, these keys")]
    assert besides
    for block in besides:
        check(merge(whole, tomllib.loads(block)), kind, source=name)


def test_the_code_prints_what_it_says() -> None:
    (block,) = _blocks("python")
    said = re.search(r"^# prints: (.*)$", block, flags=re.M)
    assert said is not None
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, said.group(1)), done.stderr


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []

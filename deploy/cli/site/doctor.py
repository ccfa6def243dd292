"""``rootstock site doctor``: what would stop the agent, and how to mend it."""

from __future__ import annotations

from textwrap import wrap

import typer

from rootstock.common.config import load
from rootstock.deploy.cli.options import AsJson, SiteConfigFile
from rootstock.deploy.output import print_json, print_plain
from rootstock.site_agent.config import SiteConfig

_NAMES, _VERDICTS, _WIDTH = 14, 10, 79


def doctor(config: SiteConfigFile, as_json: AsJson = False) -> None:
    """Look at all that the agent needs, the coordinator too, and say how to mend what is wrong.

    Ends with 1 where something would stop the agent. Nothing is changed, and nothing of the lab's
    leaves but what it asks the plan for: its name, category and tasks.
    """
    settings = load(config, SiteConfig)
    from rootstock.site_agent.doctor import Check, Verdict, examine

    found: list[Check] = []
    for check in examine(settings):
        found.append(check)
        if not as_json:
            print_plain(*_lines(check.name, check.verdict, check.found))
    stops = any(check.verdict is Verdict.STOPS for check in found)
    if as_json:
        checks = [check.model_dump(mode="json") for check in found]
        print_json({"site": settings.site, "runs": not stops, "checks": checks})
    if stops:
        raise typer.Exit(1)


def _lines(name: str, verdict: str, found: str) -> list[str]:
    """Return a check's lines, within 80 columns."""
    room = _WIDTH - _NAMES - _VERDICTS
    parts = wrap(found, room, break_on_hyphens=False) or [""]
    heads = [f"{name:<{_NAMES}}{verdict:<{_VERDICTS}}", *[" " * (_NAMES + _VERDICTS)] * len(parts)]
    return [f"{head}{part}" for head, part in zip(heads, parts, strict=False)]

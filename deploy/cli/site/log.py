"""``rootstock site accept-log``, and what ``site status`` says of the coordinator's log."""

from __future__ import annotations

from typing import Any, NamedTuple

from rootstock.common.config import load
from rootstock.common.errors import NotFoundError
from rootstock.common.files import only_one
from rootstock.common.times import readable
from rootstock.deploy.cli.options import AsJson, SiteConfigFile
from rootstock.deploy.output import print_result
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.coordinator_log import CoordinatorLog, Rewrite
from rootstock.site_agent.identity import coordinator_key


def accept_log(config: SiteConfigFile, as_json: AsJson = False) -> None:
    """Go on with a coordinator that has rewritten its history: put back from a backup, say.

    Both signed heads are kept as evidence. Stop the agent first.
    """
    settings = load(config, SiteConfig)
    with only_one(settings.state, "agent"):
        log = CoordinatorLog(settings.state, coordinator_key(settings))
        rewrite = log.accept()
    value = _value(log, rewrite)
    print_result(value, f"accepted: {log.said(rewrite)}", as_json=as_json)


class LogStatus(NamedTuple):
    """What a lab knows of its coordinator's log, as JSON and for people."""

    value: dict[str, Any] | None
    lines: list[str]


def log_status(settings: SiteConfig) -> LogStatus:
    """Return what is known of the log, and each time that it was rewritten."""
    try:
        log = CoordinatorLog(settings.state, coordinator_key(settings))
    except NotFoundError:
        return LogStatus(None, [])
    known = log.known()
    if known is None:
        return LogStatus(None, [])
    head = log.head(known.head)
    lines = [f"{head.size} entries, signed {readable(head.at)}, root {head.root[:16]}"]
    for each in known.rewrites:
        ended = (
            f"{each.ended} {readable(each.ended_at)}"
            if each.ended
            else ("NOTHING IS SHIPPED until it is accepted: `rootstock site accept-log`")
        )
        lines.append(f"REWRITTEN, noticed {readable(each.at)}: {log.said(each)}; {ended}")
    value = {
        "size": head.size,
        "root": head.root,
        "signed_at": head.at,
        "rewrites": [_value(log, each) for each in known.rewrites],
    }
    return LogStatus(value, lines)


def _value(log: CoordinatorLog, rewrite: Rewrite) -> dict[str, Any]:
    known, found = log.head(rewrite.known), log.head(rewrite.found)
    return {
        "at": rewrite.at,
        "known": known.model_dump(mode="json"),
        "found": found.model_dump(mode="json"),
        "ended": rewrite.ended,
        "ended_at": rewrite.ended_at,
    }

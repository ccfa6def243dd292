"""``rootstock site ledger``: every number and every file that left the lab."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import fill

from rootstock.common.config import load
from rootstock.common.times import readable
from rootstock.deploy.cli.options import AsJson, SiteConfigFile
from rootstock.deploy.output import cut, print_json, print_plain
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.consent.ledger import LedgerEntry, read_ledger

_WIDTH = 79


def ledger(config: SiteConfigFile, as_json: AsJson = False) -> None:
    """Show every number and every file that left this lab: when, to whom, and for what."""
    entries = read_ledger(load(config, SiteConfig).state)
    if as_json:
        print_json({"entries": [entry.model_dump(mode="json") for entry in entries]})
    else:
        print_plain(*lines(entries))


def lines(entries: Iterable[LedgerEntry]) -> Iterator[str]:
    """Yield entries as people read them, within 80 columns."""
    coordinator = ""
    for entry in entries:
        if entry.coordinator != coordinator:
            coordinator = entry.coordinator
            yield f"to the coordinator whose key is {coordinator}:"
        yield cut(f"{readable(entry.at)}  {_what(entry)}", _WIDTH)
        if entry.digest:
            yield f"  sha256 {entry.digest}"
        if entry.numbers:
            told = ", ".join(f"{name} {value:g}" for name, value in entry.numbers.items())
            yield fill(
                told,
                _WIDTH,
                initial_indent="  ",
                subsequent_indent="  ",
                break_on_hyphens=False,
            )
    if not coordinator:
        yield "nothing has left this lab"


def _what(entry: LedgerEntry) -> str:
    if entry.what == "report":
        count = len(entry.numbers)
        return f"report of {entry.subject}, {count} numbers"
    if entry.what == "manifest":
        return f"manifest {entry.subject[:12]}, {len(entry.numbers)} numbers"
    return f"{entry.name} of {entry.subject[:12]}, {entry.bytes} bytes"

"""``rootstock site ledger``: every number and every file that left the lab."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import fill

from rootstock.common.config import load
from rootstock.common.errors import NotFoundError
from rootstock.common.files import storage_errors
from rootstock.common.text import one_line
from rootstock.common.times import readable
from rootstock.deploy.cli.options import AsJson, SiteConfigFile
from rootstock.deploy.output import cut, print_json, print_plain
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.consent.ledger import FOLDER, LedgerEntry, read_ledger

_WIDTH = 79


def ledger(config: SiteConfigFile, as_json: AsJson = False) -> None:
    """Show every number and every file that left this lab: when, to whom, and for what."""
    state = load(config, SiteConfig).state
    with storage_errors(state):
        known = any((state / name).exists() for name in (FOLDER, "status.json", "identity"))
    if not known:
        raise NotFoundError(
            f"{state}: no agent has run here, so there is no ledger; check `state` in {config}, or "
            "start `rootstock site run`"
        )
    entries = read_ledger(state)
    if as_json:
        print_json({"entries": [entry.model_dump(mode="json") for entry in entries]})
    else:
        print_plain(*lines(entries))


def lines(entries: Iterable[LedgerEntry]) -> Iterator[str]:
    """Yield entries as people read them, within 80 columns."""
    coordinator = ""
    for entry in entries:
        if not coordinator:
            yield f"the ledger begins with {readable(entry.at)}"
        if entry.coordinator != coordinator:
            coordinator = entry.coordinator
            yield f"to the coordinator whose key is {coordinator}:"
        yield cut(f"{readable(entry.at)}  {_what(entry)}", _WIDTH)
        if entry.digest:
            yield f"  sha256 {entry.digest}"
        if entry.numbers:
            yield _indented(", ".join(f"{name} {value:g}" for name, value in entry.numbers.items()))
        if entry.failure:
            yield _indented(one_line(entry.failure))
    if not coordinator:
        yield "the ledger is empty: nothing has left this lab since it keeps one"


def _indented(text: str) -> str:
    return fill(text, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def _what(entry: LedgerEntry) -> str:
    if entry.what == "report":
        count = len(entry.numbers)
        return f"report of {entry.subject}, {count} numbers"
    if entry.what == "manifest":
        return f"manifest {entry.subject[:12]}, {len(entry.numbers)} numbers"
    return f"{entry.name} of {entry.subject[:12]}, {entry.bytes} bytes"

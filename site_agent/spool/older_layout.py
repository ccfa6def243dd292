"""Reads a state folder of before receipts and cursor carried their coordinator's fingerprint."""

from __future__ import annotations

from pathlib import Path

from rootstock.common.errors import IntegrityError, SchemaError
from rootstock.common.files import read_capped, storage_errors, write_bytes
from rootstock.common.identity.keys import fingerprint
from rootstock.site_agent.spool.documents import SignedReceipt
from rootstock.site_agent.spool.spool import WAITS_FOR
from rootstock.site_agent.state import cursor_file

_MAX_RECEIPT_BYTES = 1 << 16


def adopt(state: Path, coordinator: bytes) -> None:
    """Give what an earlier version left in a state folder to the coordinator whose it is.

    Every receipt there is signed: if this coordinator signed all of them, then the cursor, the
    reports and what waits are its, too. Otherwise everything stays for the coordinator that did;
    a state folder without a receipt has nothing of a coordinator's.
    """
    spool, name = state / "spool", fingerprint(coordinator)
    receipts = sorted((spool / "acknowledged").glob("*/receipt.json"))
    if not receipts or not all(_signed_by(path, coordinator) for path in receipts):
        return
    cursor = cursor_file(state, coordinator)
    with storage_errors(state):
        for folder in ("reports", "reported"):
            for path in sorted((spool / folder).glob("*.json")):
                _move(path, spool / folder / name / path.name)
        for entry in sorted((spool / "entries").iterdir()):
            if not (entry / WAITS_FOR).exists():
                write_bytes(entry / WAITS_FOR, name.encode())
        for path in sorted(spool.glob("*/*/sent")):
            _move(path, path.with_name(f"sent.{name}"))
        _move(state / "cursor.json", cursor)
        # Last: a crash in between leaves the proof, and the rest is adopted at the next start.
        for path in receipts:
            _move(path, path.with_name(f"receipt.{name}.json"))


def _signed_by(path: Path, coordinator: bytes) -> bool:
    try:
        data = read_capped(path, _MAX_RECEIPT_BYTES, what="receipt")
        SignedReceipt.parse(data, what=str(path)).verify(path.parent.name, coordinator)
    except (IntegrityError, SchemaError):
        return False
    return True


def _move(path: Path, target: Path) -> None:
    """Rename a file, unless it is not there or has been adopted before."""
    if path.exists() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)

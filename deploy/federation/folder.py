"""The state folder of a federation: who made it, who uses it, and what may be deleted in it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from rootstock.common.errors import ConfigurationError, ConflictError
from rootstock.common.files import lock_owner, only_one, storage_errors, write_bytes

WAIT_SECONDS = 25.0
"""How long `down` waits for an `up` that it has asked to end: it stops its processes in turn."""

PARTS = ("mlflow", "coordinator", "sites", "logs", "configuration", "net.png")
"""What every federation has in its folder, beside the marker and the lock."""

LOCK = "lock"


class Maker(StrEnum):
    """The command that made a folder, with a marker of its own in it."""

    DEMO = "demo"
    UP = "up"

    @property
    def marker(self) -> str:
        """The file that only this command writes; the federation as it was resolved last."""
        return {Maker.DEMO: "demo.json", Maker.UP: "federation.json"}[self]


def state_folder(path: Path) -> Path:
    """Return the real folder that an option names, without links; it need not exist."""
    text = os.path.expanduser(path)  # noqa: PTH111  # Path's raises for ~user
    if text.startswith("~") or "$" in text:
        raise ConfigurationError(
            f"{path}: there is no such user or variable here; write the folder out, from / on"
        )
    return Path(os.path.realpath(text))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a folder for this process: one `up`, `demo` or `coordinator ui` at a time."""
    remedy = f"`rootstock down {folder}` stops it; --state names another folder"
    with only_one(folder, "`up`, `demo` or `coordinator ui`", remedy=remedy):
        yield


def require_own(folder: Path, maker: Maker) -> None:
    """Raise ConflictError unless `maker` made a folder, or nothing in it would be overwritten.

    `up` may work beside a user's files, a demo has its folder for itself.
    """
    with storage_errors(folder):
        names = {each.name for each in folder.iterdir()} if folder.is_dir() else set()
    (other,) = set(Maker) - {maker}
    if other.marker in names:
        raise ConflictError(
            f"{folder}: `rootstock {other}` made this folder, and `{maker}` leaves it alone; name "
            "another with --state"
        )
    if maker.marker in names:
        return
    foreign = names - {LOCK} if maker is Maker.DEMO else names & set(PARTS)
    if foreign:
        raise ConflictError(
            f"{folder}: has {_listed(foreign)}, which `rootstock {maker}` did not make; name "
            "another folder with --state"
        )


def write_marker(folder: Path, maker: Maker, text: str) -> None:
    """Say that `maker` made a folder."""
    write_bytes(folder / maker.marker, text.encode())


def remove_demo(folder: Path) -> None:
    """Delete what a demo made in its folder, which this process has locked.

    ConflictError, and nothing is deleted, if anything else is in it or one of its processes runs.
    Links are not followed.
    """
    if not (folder / Maker.DEMO.marker).exists():
        return  # `require_own` has looked: there is nothing in it
    if foreign := _foreign(folder):
        raise ConflictError(
            f"{folder}: --fresh deletes only what a demo made, and this is not: "
            f"{_listed(foreign)}; move it away, or name another folder with --state"
        )
    for state in (folder / "coordinator", *folder.glob("sites/*")):
        if (owner := lock_owner(state)) is not None:
            raise ConflictError(
                f"{state}: process {owner or 'unknown'} runs in it; stop it, then --fresh deletes "
                "the demo"
            )
    with storage_errors(folder):
        for name in PARTS:
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        # Last: a folder of which only a part is deleted is a demo's still.
        (folder / Maker.DEMO.marker).unlink()


def _foreign(folder: Path) -> set[str]:
    """Return what a demo has not made, by its path in the folder."""
    known = {*PARTS, LOCK, Maker.DEMO.marker}
    foreign = {
        each.name for each in folder.iterdir() if each.name not in known or each.is_symlink()
    }
    configured = {each.stem for each in folder.glob("configuration/*.toml")}
    for pattern, is_own in (
        ("logs/*", lambda each: each.suffix == ".log"),
        ("configuration/*", lambda each: each.suffix == ".toml"),
        ("sites/*", lambda each: each.name in configured and not each.is_symlink()),
    ):
        own = filter(lambda each: not is_own(each), folder.glob(pattern))
        foreign |= {str(each.relative_to(folder)) for each in own}
    return foreign


def _listed(names: set[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def wait_until_free(folder: Path, seconds: float = WAIT_SECONDS) -> bool:
    """Wait until nobody has a folder's lock; say whether that is so."""
    deadline = time.monotonic() + seconds
    while lock_owner(folder) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def has_lock(pid: int, folder: Path) -> bool:
    """Say whether a process has a folder's lock open: a number of another container has not."""
    try:
        opened = [each.readlink() for each in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return folder / LOCK in opened

"""Lists the image files of a folder, and counts what it leaves out."""

from __future__ import annotations

import errno
import os
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from rootstock.common.errors import DataError
from rootstock.common.image_files.findings import Finding, FindingKind, examples, printable

SUFFIXES = frozenset(
    [
        ".apng",
        ".avif",
        ".bmp",
        ".dib",
        ".gif",
        ".j2k",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpf",
        ".jpg",
        ".jpx",
        ".pbm",
        ".pfm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".qoi",
        ".tga",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
"""Endings of image files, in lower case: what Pillow's wheels decode of the formats of pictures."""

_TEXTS = frozenset(
    [
        ".cfg",
        ".csv",
        ".doc",
        ".docx",
        ".htm",
        ".html",
        ".ini",
        ".ipynb",
        ".json",
        ".jsonl",
        ".log",
        ".md",
        ".odt",
        ".pdf",
        ".py",
        ".rst",
        ".sh",
        ".toml",
        ".tsv",
        ".txt",
        ".xls",
        ".xlsx",
        ".xml",
        ".yaml",
        ".yml",
    ]
)
"""Endings of what lies beside images and is none: labels, notes, tables."""

_SYSTEM = frozenset(
    [
        "__macosx",
        "lost+found",
        "$recycle.bin",
        "recycler",
        "#recycle",
        "#snapshot",
        "~snapshot",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "__pycache__",
    ]
) | {"system volume information", "network trash folder", "temporary items"}
"""Names, casefolded, that operating systems, archives and storage servers put into folders."""

Identity = tuple[int, int]
"""Device and inode of a folder."""


class LeftOut(StrEnum):
    """Why a file or a folder is not read."""

    SYSTEM = "system"
    TEXT = "text"
    ENDING = "ending"
    NO_FILE = "no regular file"
    DANGLING = "dangling link"
    SEEN = "folder that is read already"


@dataclass
class Listing:
    """The image files below a folder, in the order of their paths, and what was left out."""

    paths: list[Path] = field(default_factory=list)
    left_out: dict[LeftOut, list[Path]] = field(
        default_factory=lambda: {why: [] for why in LeftOut}
    )

    def findings(self, of: str, root: Path, subject: str = "") -> Iterator[Finding]:
        """Yield what there is to say; `of` names the folder, as in "'cat'".

        Example files are named below `root`.
        """
        yield from self._endings(of, subject)
        for why, kind, what, doubtful in (
            (LeftOut.NO_FILE, FindingKind.NO_REGULAR_FILE, "no regular files", True),
            (LeftOut.DANGLING, FindingKind.DANGLING_LINK, "links that lead nowhere", True),
            (LeftOut.SEEN, FindingKind.READ_ONCE, "links to folders that are read already", True),
            (LeftOut.SYSTEM, FindingKind.SYSTEM_FILES, "system files or folders", False),
            (LeftOut.TEXT, FindingKind.OTHER_FILES, "texts or tables, not images", False),
        ):
            if paths := self.left_out[why]:
                names = [path.relative_to(root) for path in paths]
                yield Finding(
                    kind=kind,
                    count=len(paths),
                    text=f"{len(paths)} left out of {of}, being {what}: {examples(names)}",
                    doubtful=doubtful,
                    subject=subject,
                )

    def _endings(self, of: str, subject: str) -> Iterator[Finding]:
        foreign = self.left_out[LeftOut.ENDING]
        if foreign:
            counts = Counter(ending(path) for path in foreign).most_common()
            by_ending = ", ".join(f"{printable(name)} ({count})" for name, count in counts)
            yield Finding(
                kind=FindingKind.UNKNOWN_ENDING,
                count=len(foreign),
                text=f"{len(foreign)} of {len(foreign) + len(self.paths)} files of {of} left out: "
                f"{by_ending}; known endings are {' '.join(sorted(SUFFIXES))}; convert them",
                subject=subject,
            )


def is_system(name: str) -> bool:
    """Say whether a file or folder is the system's, not the user's: hidden, thumbnails, trash."""
    return name.startswith((".", "@")) or name.casefold() in _SYSTEM


def ending(path: Path) -> str:
    """Return a file's ending in lower case, both of .nii.gz; "no ending" where there is none."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if len(suffixes) == 2 and suffixes[1] in (".gz", ".bz2", ".xz", ".zst"):
        return "".join(suffixes)
    return suffixes[-1] if suffixes else "no ending"


def identity(folder: Path) -> Identity:
    """Return what a folder is the same by, whatever path leads to it."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def subfolders(root: Path) -> tuple[list[Path], Listing]:
    """Return the folders in a folder, by name, and a listing of all else that is in it.

    Links are followed; of two that lead to one folder, the one that is no link or comes first by
    its name is returned. DataError if the folder cannot be listed.
    """
    listing = Listing()
    folders: list[Path] = []
    seen = {identity(root)}
    entries = [entry for entry in _entries(root) if _is_folder(entry, listing)]
    for entry in sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name)):
        path = Path(entry.path)
        if identity(path) in seen:
            listing.left_out[LeftOut.SEEN].append(path)
            continue
        seen.add(identity(path))
        folders.append(path)
    listing.paths.sort()
    return sorted(folders), listing


def list_images(root: Path, read_already: frozenset[Identity] = frozenset()) -> Listing:
    """List all image files below a folder, at any depth.

    System files are left out at every depth. Links are followed and each real folder is read once,
    by its own path before that of any link, and none of `read_already`; so loops end. Only regular
    files are listed: a pipe would never end. DataError if a folder cannot be listed.
    """
    listing = Listing()
    seen = {*read_already, identity(root)}
    waiting, links = deque([root]), deque[Path]()
    while waiting or links:
        folder = waiting.popleft() if waiting else links.popleft()
        if folder is not root:
            if identity(folder) in seen:
                listing.left_out[LeftOut.SEEN].append(folder)
                continue
            seen.add(identity(folder))
        for entry in _entries(folder):
            if _is_folder(entry, listing):
                (links if entry.is_symlink() else waiting).append(Path(entry.path))
    listing.paths.sort()
    for paths in listing.left_out.values():
        paths.sort()
    return listing


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise _unlisted(folder, error) from error


def _is_folder(entry: os.DirEntry[str], listing: Listing) -> bool:
    """Say whether an entry is a folder to be read; if it is not, the listing takes it in."""
    path = Path(entry.path)
    if is_system(entry.name):
        listing.left_out[LeftOut.SYSTEM].append(path)
        return False
    try:
        if entry.is_dir():
            return True
        regular, dangling = entry.is_file(), entry.is_symlink() and not path.exists()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise _unlisted(path, error) from error
        regular, dangling = False, True
    suffix = path.suffix.lower()
    if dangling:
        listing.left_out[LeftOut.DANGLING].append(path)
    elif not regular:
        listing.left_out[LeftOut.NO_FILE].append(path)
    elif suffix in SUFFIXES:
        listing.paths.append(path)
    else:
        listing.left_out[LeftOut.TEXT if suffix in _TEXTS else LeftOut.ENDING].append(path)
    return False


def _unlisted(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{printable(path)}: cannot be listed ({os.strerror(error.errno or 0)}); give this user "
        "the right to read and enter it, or move it away"
    )

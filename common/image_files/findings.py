"""What an operator should know about image files that were read, or were not."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from pydantic import Field

from rootstock.common.documents import Document

_EXAMPLES = 3


class FindingKind(StrEnum):
    """What a finding is about; part of the JSON that commands print."""

    SYSTEM_FILES = "system-files"
    UNKNOWN_ENDING = "unknown-ending"
    OTHER_FILES = "other-files"
    NO_REGULAR_FILE = "no-regular-file"
    DANGLING_LINK = "dangling-link"
    READ_ONCE = "read-once"
    OUTSIDE_CLASSES = "outside-classes"
    UNREADABLE = "unreadable"
    LISTED_TWICE = "listed-twice"
    SIMILAR_CLASS = "similar-class"
    CONVERTED = "converted"
    BEYOND_RANGE = "beyond-range"
    ONE_LEVEL = "one-level"
    FEW_LEVELS = "few-levels"
    TWINS = "twins"
    CONTRADICTING_TWINS = "contradicting-twins"
    LOOK_ALIKES = "look-alikes"
    CHANGED_SINCE = "changed-since"


class Finding(Document):
    """One fact about a set of image files."""

    kind: FindingKind
    count: int = Field(ge=0)
    """How many files it concerns."""
    text: str
    """A sentence for people; names of files are printable, see `printable`."""
    doubtful: bool = True
    """Whether the operator should look at it: a README beside the images is nothing to look at."""
    subject: str = ""
    """The class that it is about, if it is about one."""


def printable(name: object) -> str:
    """Return a file's name or path as it may stand in a message, a log or JSON.

    Line breaks, other control characters and bytes that are not UTF-8 become escapes; names that
    have none are returned as they are.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in str(name)
    )


def examples(names: Sequence[object]) -> str:
    """Return the first few names, and how many there are besides."""
    shown = ", ".join(printable(name) for name in names[:_EXAMPLES])
    rest = len(names) - _EXAMPLES
    return f"{shown} and {rest} more" if rest > 0 else shown


def images(count: int) -> str:
    """Return a number of images in words: 1 image, 12 images."""
    return "1 image" if count == 1 else f"{count} images"

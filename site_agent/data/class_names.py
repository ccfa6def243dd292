"""Finds the class that a setting means among those of a dataset, in any language, or refuses."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from rootstock.common.errors import DataError
from rootstock.common.image_files.findings import printable

_NUMBERED = re.compile(r"^(\d) - .*$")


def slug(name: str) -> str:
    """Return a class's name in lower case with hyphens: ankle-boot for "Ankle boot".

    Letters and digits of all scripts stay, everything else becomes hyphens: "Grade 1+" and
    "Grade 1-" are alike, and a name of signs alone is empty. MNIST's "0 - zero" is "0".
    """
    return re.sub(r"[\W_]+", "-", _folded(_NUMBERED.sub(r"\1", name))).strip("-")


def find_class(wanted: str, classes: Sequence[str], setting: str) -> str:
    """Return the class that `wanted` means.

    That is the one of this very name; or the only one that differs in case or in how its accents
    are written; or the only one whose slug is `wanted` but for its spaces and underscores. Signs in
    `wanted` are never dropped: "C#" is not "C". DataError, naming `setting` and the classes,
    otherwise.
    """
    if wanted in classes:
        return wanted
    folded = _folded(wanted)
    alike = [name for name in classes if _folded(name) == folded]
    if not alike:
        hyphenated = re.sub(r"[\s_/-]+", "-", folded)
        alike = [name for name in classes if hyphenated and slug(name) == hyphenated]
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise DataError(
            f"{setting}: '{printable(wanted)}' may be {_either(alike)}; write it exactly"
        )
    raise DataError(
        f"{setting}: the dataset has no class '{printable(wanted)}'; it has "
        + (", ".join(map(printable, classes)) or "none")
    )


def same_but_for_case(name: str, classes: Sequence[str]) -> list[str]:
    """Return the other classes whose names differ in case or in how accents are written."""
    return [other for other in classes if other != name and _folded(other) == _folded(name)]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _either(names: Sequence[str]) -> str:
    *first, last = map(_distinct, names)
    return f"{', '.join(first)} or {last}"


def _distinct(name: str) -> str:
    """Show a name; where its accents are written in two characters, those are escaped."""
    if unicodedata.normalize("NFC", name) == name:
        return printable(name)
    return ascii(name)[1:-1]

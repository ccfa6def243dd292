"""The classes of `common.errors`: what each is, and what it ends a process and a call with."""

from __future__ import annotations

from collections.abc import Iterator

from rootstock.common import errors
from rootstock.common.errors import RootstockError
from rootstock.common.transport.status import abort_status

NAME = "errors"
CLASSES = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, RootstockError)
]


def present() -> Iterator[str]:
    """Yield what each class of `common.errors` is, and ends a process and a call with."""
    for kind in CLASSES:
        yield f"{kind.__name__} ends a process with {kind.exit_code}"
        yield f"{kind.__name__} ends a call with {abort_status(kind('x'))[0].name}"
        for base in kind.__bases__:
            yield f"{kind.__name__} is a {base.__name__}"

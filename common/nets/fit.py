"""Whether modules fit together; shapes only, no weights."""

from __future__ import annotations

from rootstock.common.errors import SchemaError
from rootstock.common.nets.spec import AdapterSpec

Shape = tuple[int, int, int]
"""(C, H, W)."""


def require_fit(what: str, given: Shape, wanted: Shape, spec: AdapterSpec | None) -> None:
    """Hold features against what g_S takes.

    Parameters
    ----------
    what
        How errors name the join ("candidate 'refined'").
    given, wanted
        What f gives, what g_S takes.
    spec
        Of the adapter in between; None joins directly.

    Raises
    ------
    SchemaError
        If the adapter cannot stand between the two; says all shapes.
    """
    channels = (given[0], wanted[0]) if spec is None else (spec.in_channels, spec.out_channels)
    fits = channels == (given[0], wanted[0]) and given[1:] == wanted[1:]
    if not fits or (spec is None and given[0] != wanted[0]):
        raise SchemaError(
            f"{what} takes {channels[0]} channels to {channels[1]}; f gives "
            f"{'×'.join(map(str, given))}, g_S takes {'×'.join(map(str, wanted))}"
        )

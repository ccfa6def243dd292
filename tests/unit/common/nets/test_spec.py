from __future__ import annotations

import pytest

from rootstock.common.errors import SchemaError
from rootstock.common.nets.spec import AdapterSpec, require_fit

SPEC = AdapterSpec(in_channels=8, out_channels=8)


@pytest.mark.parametrize(
    ("spec", "given"),
    [
        (AdapterSpec(in_channels=4, out_channels=8), (8, 16, 16)),
        (None, (4, 16, 16)),
        (SPEC, (8, 8, 8)),
    ],
)
def test_what_does_not_fit(spec: AdapterSpec | None, given: tuple[int, int, int]) -> None:
    with pytest.raises(SchemaError, match=r"candidate 'x' takes .*g_S takes 8×16×16"):
        require_fit("candidate 'x'", given, (8, 16, 16), spec)
    require_fit("candidate 'x'", (8, 16, 16), (8, 16, 16), SPEC)
    require_fit("candidate 'x'", (8, 16, 16), (8, 16, 16), None)

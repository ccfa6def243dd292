"""``rootstock bench``: measurements anyone can rerun."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.cli.extras import needs_coordinator
from deploy.cli.output import PEOPLE, RESULT, print_json

app = typer.Typer(help="Measure.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Measure."""


@app.command()
def transport(
    mebibytes: Annotated[int, typer.Option(min=1, max=16384, help="Size of the module.")] = 1024,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ship one module to a coordinator's server, and the same bytes over a bare gRPC stream."""
    with needs_coordinator("bench transport"):
        from deploy.benchmarks.transport import measure

    row = measure(mebibytes << 20, PEOPLE)
    if as_json:
        print_json(row)
        return
    for key, value in row.items():
        RESULT.print(f"{key:<28} {value}")


@app.command()
def solver(
    quick: Annotated[bool, typer.Option("--quick", help="Under a minute; no VGG-16.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Adjoints against a double backward pass, closed form against optimisation, Ray actors."""
    with needs_coordinator("bench solver"):
        from deploy.benchmarks.solver import measure, table

    result = measure(PEOPLE, quick=quick)
    if as_json:
        print_json(result)
        return
    table(result["rows"], RESULT.print)

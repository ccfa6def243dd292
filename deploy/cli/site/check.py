"""``rootstock site check``: what the agent would read of the lab's images, and what is doubtful."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

from rootstock.common.config import load
from rootstock.common.errors import DataError, StorageError
from rootstock.deploy.cli.options import AsJson, SiteConfigFile
from rootstock.deploy.output import cut, print_json, print_plain
from rootstock.site_agent.config import SiteConfig

if TYPE_CHECKING:
    from rootstock.site_agent.teacher.data_report import DataReport

_WIDTH = 79
_NAME = 33
"""Width of the classes' names."""


def check(
    config: SiteConfigFile,
    size: Annotated[
        int,
        typer.Option(min=8, max=4096, help="Pixels of the net's input, until a plan is fetched."),
    ] = 64,
    as_json: AsJson = False,
) -> None:
    """Read the lab's images as `site run` does, and say what is doubtful. Needs no coordinator.

    Ends with 4 where the agent would not train on them, and says why.
    """
    settings = load(config, SiteConfig)
    from rootstock.site_agent.teacher.data_report import check_data

    report = check_data(settings, size)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        print_plain(*lines(report))
    if report.refusal:
        raise DataError(report.refusal)
    if not report.state_writable:
        raise StorageError(
            f"{report.state}: cannot be written; give this user the right to it, or name another "
            "folder with `state`"
        )


def lines(report: DataReport) -> Iterator[str]:
    """Yield the report as people read it, within 80 columns."""
    yield f"{report.site} ({report.category})"
    yield f"  images  {report.data}"
    yield f"  state   {report.state} ({'can' if report.state_writable else 'CANNOT'} be written)"
    shape = "×".join(map(str, report.input_shape))
    masks = ", with masks" if report.masks else ""
    if report.plan_known:
        yield f"  size    {shape}{masks}, as the plan says that the agent fetched"
    else:
        yield f"  size    {shape}; the agent has fetched no plan yet, which may want another"
    if report.classes:
        yield ""
        yield from _table(report)
    for doubtful, title in ((True, "Look at:"), (False, "For the record:")):
        found = [finding for finding in report.findings if finding.doubtful is doubtful]
        if found:
            yield ""
            yield title
            for finding in found:
                yield fill(
                    finding.text,
                    _WIDTH,
                    initial_indent="- ",
                    subsequent_indent="  ",
                    break_on_hyphens=False,
                )
    if not report.refusal:
        yield ""
        doubts = sum(finding.doubtful for finding in report.findings)
        verdict = "nothing is doubtful" if doubts == 0 else f"{doubts} to look at"
        yield f"the agent would train on these images; {verdict}"


def _table(report: DataReport) -> Iterator[str]:
    yield _row("class", "training", "holdout", "validation", "all")
    yield "─" * _WIDTH
    for each in report.classes:
        name = cut(f"{each.name}{' (category)' if each.is_category else ''}", _NAME)
        numbers = [each.training, each.holdout, each.validation]
        yield _row(name, *map(str, numbers), str(sum(numbers)))
    yield "─" * _WIDTH
    levels = [str(report.grey_levels[part]) for part in ("training", "holdout", "validation")]
    yield _row("grey levels, of 256", *levels, "")


def _row(name: str, *values: str) -> str:
    return f"{name:<{_NAME}}{''.join(f'{value:>11}' for value in values)}".rstrip()

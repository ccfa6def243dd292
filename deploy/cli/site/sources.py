"""``rootstock site sources``: which net to transfer from, with little or no fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rootstock.common.config import load
from rootstock.deploy.cli.options import AsJson, SiteConfigFile
from rootstock.deploy.output import cut, note, print_json, print_plain, progress, retrying
from rootstock.site_agent.config import SiteConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootstock.site_agent.transfer.rank_sources import Ranked, Ranking, Score

_NAME = 32
"""Width of names: 80 with the rank and four numbers."""


def sources(
    config: SiteConfigFile,
    given: Annotated[
        list[Path] | None,
        typer.Option("--from", help="Exported net NAME.safetensors, its card beside; repeatable."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Whose task module; default: the lab's first.")
    ] = None,
    steps: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Of fine-tuning f; 0: at once only.")
    ] = 50,
    as_json: AsJson = False,
) -> None:
    """Rank category modules as sources below the lab's own task module, without training for each.

    Besides the files that are given these are the lab's older teachers. The holdout images rank;
    errors on validation images are reported and decide nothing. The agent may run meanwhile.
    """
    settings = load(config, SiteConfig)
    from rootstock.site_agent.recipes.sources import from_file
    from rootstock.site_agent.transfer.rank_sources import candidates, rank, task_named
    from rootstock.site_agent.transfer.snapshot import snapshot

    with snapshot(settings, retrying, note) as lab, progress("ranks") as on_step:
        chosen = task_named(lab, task)
        files = [from_file(path, lab.device) for path in given or ()]
        ranking = rank(lab, candidates(lab, files), chosen, steps, on_step)
    if as_json:
        print_json(ranking.model_dump(mode="json"))
        return
    print_plain(*lines(ranking))


def lines(ranking: Ranking) -> Iterator[str]:
    """Yield the table as people read it, within 80 columns."""
    yield f"Error in %, each f below this lab's task module for {ranking.task}"
    yield ""
    tuned = f"after {ranking.steps} steps" if ranking.steps else ""
    yield f"    {'':<{_NAME}}{'at once':>20}  {tuned:>20}".rstrip()
    columns = f"{'holdout':>9}{'validation':>11}"
    yield f"    {'source':<{_NAME}}{columns}  {columns if ranking.steps else ''}".rstrip()
    yield "─" * 78
    for row in ranking.sources:
        rank = row.rank_at_once if row.rank_fine_tuned is None else row.rank_fine_tuned
        yield _row(f"{rank:>2}.", row)
    yield "─" * 78
    for row in ranking.references:
        yield _row("", row)
    yield ""
    counts = f"{ranking.holdout} holdout images rank, {ranking.validation} validation images"
    yield f"{counts} decide nothing."


def _row(rank: str, row: Ranked) -> str:
    name = f"{cut(row.source, _NAME):<{_NAME}}"
    return f"{rank:<4}{name}{_pair(row.at_once)}  {_pair(row.fine_tuned)}".rstrip()


def _pair(score: Score | None) -> str:
    if score is None:
        return ""
    return f"{score.holdout_error:>9.1f}{score.validation_error:>11.1f}"

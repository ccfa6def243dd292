"""Found the net on a task module learned on own samples above several labs' category modules.

Adopting the first teacher net is one way to begin; its task module has then seen one lab's features
only. The other way needs the operator to hold the first merge (`growth.automatic = false`) until
several teachers wait: g is learned on all their category modules at once, and the held merge adds
it instead of the teacher's own. Each further category is then merged like any other, and judged
by its lab on private data.
"""

from __future__ import annotations

from collections.abc import Iterable

from rootstock.common.errors import ConflictError, NotFoundError, TransplantError
from rootstock.common.nets.graph import NetTree
from rootstock.common.protocol import Plan
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.growth.version import category_ref
from rootstock.coordinator.merges.result import of_labs
from rootstock.coordinator.net.objects import submitted
from rootstock.coordinator.registry import OPEN_MERGES, Merge, Registry


def founding_merge(registry: Registry) -> Merge:
    """Return the held merge that would found the net."""
    if registry.versions.head() is not None:
        raise ConflictError(
            "the net is founded already; `rootstock net learn` adds a task module that several "
            "category modules share"
        )
    opened = registry.merges.all(*OPEN_MERGES)
    merge = next((each for each in opened if each.operation is OperationKind.FOUND), None)
    if merge is None:
        raise NotFoundError(
            "no teacher net waits to found the net; set growth.automatic = false, start the "
            "coordinator, and have labs ship theirs"
        )
    if merge.released:
        raise ConflictError(
            f"merge {merge.id} founds the net on {merge.category}'s own task module right "
            "now; set growth.automatic = false before labs ship, so that it is held"
        )
    return merge


def waiting_categories(registry: Registry, merge: Merge, plan: Plan) -> NetTree:
    """Return the category modules of all admitted teacher nets, as a net without a task module.

    Of two teachers for one category the first counts, and the founding merge's before all.
    """
    task = plan.task(merge.task)
    if task is None or task.kind != "binary-classification":
        raise TransplantError(
            f"merge {merge.id} founds the net with task '{merge.task}', and samples in yes/no "
            "folders tell only whether an image shows a category; let it go ahead as it is: "
            "`rootstock net grow`"
        )
    founder = registry.submissions.get(merge.submission_id)
    tree = NetTree(architecture=plan.architecture, tasks=plan.tasks)
    for submission in (founder, *of_labs(registry.submissions.undecided())):
        manifest = submitted(submission)
        if manifest.category not in tree.category_modules:
            module = category_ref(manifest, submission.manifest_digest)
            tree = tree.with_category(manifest.category, module)
    return tree


def chosen_categories(
    waiting: NetTree, founder: str, sampled: Iterable[str], wanted: Iterable[str] = ()
) -> list[str]:
    """Return which category modules the task module is learned on, the founding merge's first.

    Of those that wait (see `waiting_categories`), the `wanted` ones; if these are none, all that
    are `sampled`.
    """
    wanted = list(wanted)
    for category in wanted:
        if category not in waiting.category_modules:
            there = ", ".join(sorted(waiting.category_modules))
            raise NotFoundError(
                f"no teacher net of category '{category}' waits; there are: {there}"
            )
    chosen = wanted or [each for each in sampled if each in waiting.category_modules]
    if founder not in chosen:
        raise NotFoundError(
            f"'{founder}' founds the net, as the first that was shipped, and is not among the "
            f"categories to learn on ({', '.join(chosen) or 'none'}); give samples of it: "
            f"{founder}/yes and {founder}/no"
        )
    return [founder, *(each for each in chosen if each != founder)]

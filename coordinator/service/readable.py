"""Which blobs a lab may read: what is listed here, and nothing else.

The store holds far more: other labs' statistics, their teachers before they are merged or after
they were refused, rejected candidates. To know a digest is not to have the blob, nor to learn
whether there is one.
"""

from __future__ import annotations

from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.plan.heads import CurrentHeads


class ReadableBlobs:
    """Says which blobs a site may read.

    The plan's initial weights, published heads, the present net, what the site itself has sent, and
    what it is asked to evaluate.

    Parameters
    ----------
    context
        The coordinator's.
    heads
        Returns the auxiliary heads that are published now.
    """

    def __init__(self, context: CoordinatorContext, heads: CurrentHeads) -> None:
        self._context = context
        self._heads = heads
        plan = context.plan
        entries = (plan.initial_category_module, *plan.initial_task_modules.values())
        self._initial = frozenset(entry.digest for entry in entries)
        self._net: tuple[str, frozenset[str]] = ("", frozenset())

    def __call__(self, site: str, digest: str) -> bool:
        """Say whether a site may read a blob."""
        return (
            digest in self._initial
            or digest in self._of_heads()
            or digest in self._of_net()
            or self._context.registry.uploads.sent(site, digest)
            or any(
                digest in evaluation.request.digests()
                for evaluation in self._context.registry.evaluations.unanswered(site)
            )
        )

    def _of_heads(self) -> set[str]:
        heads = self._heads()
        return set() if heads is None else {entry.digest for entry in heads.blobs()}

    def _of_net(self) -> frozenset[str]:
        """Return the blobs of the present net; its tree is read once."""
        head = self._context.head()
        if head is None:
            return frozenset()
        seen = self._net
        if seen[0] != head.tree:
            seen = self._net = head.tree, frozenset(self._context.tree_of(head).digests())
        return seen[1]

"""Net versions: commits, each the child of the head at its time.

The line from the head to the first is the net; versions off it were rolled back. They stay, with
their numbers and blobs: a number never means two things.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Unpack

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from rootstock.common.errors import ConflictError, NotFoundError
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.growth.states import OPEN_MERGES, MergeState
from rootstock.coordinator.registry.database import Subject
from rootstock.coordinator.registry.documents import NewEvent
from rootstock.coordinator.registry.events import append_events
from rootstock.coordinator.registry.merges import MergeFields, move
from rootstock.coordinator.registry.records import Merge, NetVersion, record
from rootstock.coordinator.registry.tables import MergeRow, NetVersionRow, UploadRow, take


class Versions(Subject):
    """The net_versions table."""

    def commit(
        self,
        number: int,
        digest: str,
        tree: str,
        parent: int | None,
        merge_id: str,
        *,
        events: Iterable[NewEvent] = (),
        **fields: Unpack[MergeFields],
    ) -> NetVersion:
        """Commit a net version and move its merge to `merged`, in one transaction.

        `digest` and `tree` are those of the commit and of the tree, which are in the store already;
        for the others see `Merges.advance`. ConflictError if `parent` is no longer the head, or the
        number is not `next_number` (make the version again from the new head), or the operator has
        rejected the merge meanwhile.
        """
        now = self._clock()
        with self._database.write() as session:
            # Holds every other commit back until this one ends.
            take(session, "version")
            head, free = _head(session), _next_number(session)
            if parent != head or number != free:
                raise ConflictError(
                    f"net version {number} has parent {parent}, but the head is {head} and the "
                    f"next number {free}; make it again from the head"
                )
            row = NetVersionRow(
                number=number,
                digest=digest,
                tree=tree,
                parent=parent,
                merge_id=merge_id,
                created_at=now,
            )
            fields.setdefault("parent_version", parent)
            merge = move(session, merge_id, MergeState.MERGED, fields, now)
            if merge.decision == "reject":
                raise ConflictError(f"merge {merge_id} was rejected by the operator meanwhile")
            merge.net_version = number
            session.add(row)
            append_events(session, events, now)
            session.flush()
            return record(NetVersion, row)

    def roll_back(
        self,
        number: int,
        reason: str,
        *,
        and_later: bool = False,
        events: Callable[[list[Merge]], Iterable[NewEvent]] = lambda _: (),
    ) -> list[NetVersion]:
        """Roll a version back: its parent is the head. Return what was, newest first.

        What other sites' submissions had in later versions, or failed with for the sake of what is
        gone (its task modules, its categories' names), is void: they are decided about anew. Open
        merges that need what is gone fail.

        `events`, given the merges that are rolled back or fail, returns what to append in the same
        transaction. ConflictError if the version was rolled back before, or others stand on it and
        `and_later` does not take them back, too.
        """
        now = self._clock()
        with self._database.write() as session:
            take(session, "version")  # holds every commit back until this one ends
            row = _get(session, number)
            later_first = (
                select(NetVersionRow)
                .where(NetVersionRow.rolled_back_at.is_(None), NetVersionRow.number >= number)
                .order_by(NetVersionRow.number.desc())
            )
            line = session.scalars(later_first).all()
            if row not in line:
                raise ConflictError(
                    f"net version {number} was rolled back before; the head is {_head(session)}"
                )
            later = [str(each.number) for each in line if each.number != number]
            if later and not and_later:
                raise ConflictError(
                    f"net version {number} cannot be rolled back alone: version "
                    f"{', '.join(later)} stands on it; roll those back first, or all at once "
                    "with --and-later"
                )
            merges = []
            for each in line:
                each.rolled_back_at = now
                merge = move(
                    session, each.merge_id, MergeState.ROLLED_BACK, {"reason": reason}, now
                )
                merges.append(record(Merge, merge))
            ended = _let_join_again(session, merges, {each.number for each in line}, now)
            append_events(session, events([*merges, *ended]), now)
            session.flush()
            return [record(NetVersion, each) for each in line]

    def next_number(self) -> int:
        """Return the number of the version that is committed next."""
        with self._database.read() as session:
            return _next_number(session)

    def head(self) -> NetVersion | None:
        """Return the newest version that stands, or None where there is no net."""
        with self._database.read() as session:
            number = _head(session)
            row = None if number is None else session.get(NetVersionRow, number)
            return None if row is None else record(NetVersion, row)

    def get(self, number: int) -> NetVersion:
        """Return a version by its number; NotFoundError if there is none."""
        with self._database.read() as session:
            return record(NetVersion, _get(session, number))

    def all(self) -> list[NetVersion]:
        """Return every version, oldest first, rolled back or not."""
        query = select(NetVersionRow).order_by(NetVersionRow.number)
        return self._database.fetch(NetVersion, query)


def _head(session: Session) -> int | None:
    standing = select(func.max(NetVersionRow.number)).where(NetVersionRow.rolled_back_at.is_(None))
    return session.scalar(standing)


def _next_number(session: Session) -> int:
    return (session.scalar(select(func.max(NetVersionRow.number))) or 0) + 1


def _get(session: Session, number: int) -> NetVersionRow:
    row = session.get(NetVersionRow, number)
    if row is None:
        raise NotFoundError(
            f"no net version {number}; the head is {_head(session) or 'not founded yet'}"
        )
    return row


def _let_join_again(
    session: Session, rolled_back: list[Merge], versions: set[int], now: float
) -> list[Merge]:
    """Void the merges of submissions that stood on a version found wanting, or fell by it.

    `rolled_back` are the merges of `versions`, the one that was named last. Open merges that need
    what is gone end here, and are returned. What the named one's site shipped, what the operator
    rejected, and a submission of which anything stands, stay as they are.
    """
    unwanted = session.scalars(
        select(UploadRow.id).where(
            UploadRow.site
            == select(UploadRow.site)
            .where(UploadRow.id == rolled_back[-1].submission_id)
            .scalar_subquery()
        )
    ).all()
    tasks = {merge.task for merge in rolled_back if merge.operation.adds_task}
    standing = select(MergeRow.category).where(MergeRow.state == MergeState.MERGED)
    categories = {merge.category for merge in rolled_back} - set(session.scalars(standing))
    ended = _end_open(session, tasks, categories, now)
    tasks |= {merge.task for merge in ended if merge.operation.adds_task}
    fell = select(MergeRow).where(
        MergeRow.state.in_((MergeState.FAILED, MergeState.REJECTED)),
        MergeRow.parent_version.in_(versions),
        MergeRow.decision.is_distinct_from("reject"),
        or_(MergeRow.task.in_(tasks), MergeRow.category.in_(categories)),
    )
    ids = [merge.id for merge in (*rolled_back, *ended)]
    taken_back = select(MergeRow).where(MergeRow.id.in_(ids))
    affected = {row.id: row for row in (*session.scalars(fell), *session.scalars(taken_back))}
    for submission in {row.submission_id for row in affected.values()} - set(unwanted):
        rows = session.scalars(
            select(MergeRow).where(MergeRow.submission_id == submission, MergeRow.void.is_(False))
        ).all()
        if all(row.id in affected for row in rows):
            for row in rows:
                row.void = True
    return ended


def _end_open(
    session: Session, tasks: Collection[str], categories: Collection[str], now: float
) -> list[Merge]:
    """Fail the labs' open merges whose task module or category module is gone, or never comes."""
    gone, ended = set(tasks), []
    for kind in (OperationKind.NEW_TASK, OperationKind.NEW_CATEGORY):
        needs = or_(
            MergeRow.category.in_(categories),
            MergeRow.task.in_(gone if kind is OperationKind.NEW_CATEGORY else ()),
        )
        query = select(MergeRow.id).where(
            MergeRow.state.in_(OPEN_MERGES),
            MergeRow.decision.is_distinct_from("reject"),
            MergeRow.operation == kind,
            needs,
        )
        for merge_id in session.scalars(query).all():
            reason = "what it was to be joined to was rolled back by the operator in the meantime"
            row = move(session, merge_id, MergeState.FAILED, {"reason": reason}, now)
            gone |= {row.task} if kind.adds_task else set()
            ended.append(record(Merge, row))
    return ended

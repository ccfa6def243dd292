"""The registry: the coordinator's database of sites, submissions, merges and net versions.

`Registry` is one database and its subjects, a table each. Every method of a subject is synchronous
and one transaction; what it returned is on the disk (SQLite in WAL mode with synchronous=FULL).
Methods that change something take `events`, which are appended in the same transaction; after
each commit the listeners of `subscribe` are called.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rootstock.coordinator.growth.states import OPEN_MERGES, MergeState, SubmissionState
from rootstock.coordinator.registry.certificates import Certificates
from rootstock.coordinator.registry.database import Change, Database, Listener
from rootstock.coordinator.registry.documents import Event, NewEvent
from rootstock.coordinator.registry.evaluations import Evaluations
from rootstock.coordinator.registry.events import Events
from rootstock.coordinator.registry.invitations import Invitations
from rootstock.coordinator.registry.log import Log
from rootstock.coordinator.registry.merges import MergeFields, Merges
from rootstock.coordinator.registry.records import (
    Access,
    Certificate,
    Decision,
    Evaluation,
    HeldAt,
    Invitation,
    Merge,
    NetVersion,
    Receipt,
    Site,
    Submission,
    Upload,
    UploadReferences,
)
from rootstock.coordinator.registry.sites import COORDINATOR, Sites
from rootstock.coordinator.registry.submissions import Submissions
from rootstock.coordinator.registry.uploads import Uploads
from rootstock.coordinator.registry.versions import Versions

__all__ = [
    "COORDINATOR",
    "OPEN_MERGES",
    "Access",
    "Certificate",
    "Change",
    "Decision",
    "Evaluation",
    "Event",
    "HeldAt",
    "Invitation",
    "Listener",
    "Merge",
    "MergeFields",
    "MergeState",
    "NetVersion",
    "NewEvent",
    "Receipt",
    "Registry",
    "Site",
    "Submission",
    "SubmissionState",
    "Upload",
    "UploadReferences",
]


class Registry:
    """The database at a SQLAlchemy URL and its subjects.

    `read_only` is for whoever is not the coordinator; see `Database`.

    Raises
    ------
    StorageError
        If the database cannot be opened or written, here or in any method; names it and the
        remedy. What was committed before is kept.
    ConfigurationError
        If the URL is not one, or the schema is another Rootstock's.
    """

    def __init__(
        self,
        url: str,
        clock: Callable[[], float] = time.time,
        *,
        read_only: bool = False,
    ) -> None:
        self._database = Database(url, read_only=read_only)
        self.sites = Sites(self._database, clock)
        self.invitations = Invitations(self._database, clock)
        self.certificates = Certificates(self._database, clock)
        self.uploads = Uploads(self._database, clock)
        self.submissions = Submissions(self._database, clock)
        self.merges = Merges(self._database, clock)
        self.evaluations = Evaluations(self._database, clock)
        self.versions = Versions(self._database, clock)
        self.events = Events(self._database, clock)
        self.log = Log(self._database, clock)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener(change)` after every commit, in the committing thread.

        `change` says whom it concerns. Returns a function that ends the subscription.
        """
        return self._database.subscribe(listener)

    def check(self) -> None:
        """Read all of the database for damage; StorageError if there is any."""
        self._database.check()

    def close(self) -> None:
        """Give back every connection; committed work needs no closing."""
        self._database.close()

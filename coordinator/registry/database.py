"""One database: opening it, its transactions, and what its failures mean."""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import sqlalchemy
from sqlalchemy import Select, event, exc
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from rootstock.common.errors import (
    ConfigurationError,
    ConflictError,
    MissingExtraError,
    StorageError,
)
from rootstock.coordinator.registry.entries import LOG_REVISION, adopt, record_changes
from rootstock.coordinator.registry.migrate import migrate, require_present
from rootstock.coordinator.registry.records import R, record

BUSY_MILLISECONDS = 30_000
"""How long a writer waits for another; a transaction here takes milliseconds."""

POOL = 16
OVERFLOW = 32
"""Connections kept, and how many more at a peak: the service works in at most 32 threads."""


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """Whom a committed transaction concerns: the sites that got events, or all."""

    sites: frozenset[str] = frozenset()
    everyone: bool = False
    ids: frozenset[str] = frozenset()
    """Ids of the submissions and merges that changed, but for an upload's or a job's progress."""
    members: bool = False
    """Whether it changed who may call: certificates, disabled sites."""
    logged: bool = False
    """Whether entries were appended to the log."""


Listener = Callable[[Change], None]


class _WritingSession(Session):
    """Collects the rows that it writes, and their subjects."""


@event.listens_for(_WritingSession, "after_flush")
def _collect(session: Session, _: object) -> None:
    rows = [*session.new, *session.dirty]
    session.info.setdefault("rows", {}).update({id(row): row for row in rows})
    subjects = {getattr(row, "subject", None) for row in rows}
    session.info.setdefault("ids", set()).update(subjects - {None})


class Database:
    """Transactions on one SQLAlchemy engine: SQLite's, or PostgreSQL's.

    `read_only` is for whoever is not the coordinator: no lock is taken, no file made, no writer
    waited for, and a database of another schema is left as it is; else it is migrated.
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        try:
            self._url: URL = make_url(url)
            self._engine = _engine(self._url, read_only=read_only)
        except exc.ArgumentError as error:
            raise ConfigurationError(
                f"database '{url}' is not a SQLAlchemy URL; write sqlite:///PATH"
            ) from error
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"database '{self._url.drivername}' needs the package {error.name}; install it"
            ) from error
        self._read_only = read_only
        self._reading = self._engine.execution_options(
            rootstock_read=True, postgresql_readonly=True
        )
        if self._engine.dialect.name == "postgresql":  # SQLite's transactions are snapshots anyway
            self._reading = self._reading.execution_options(isolation_level="REPEATABLE READ")
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()
        try:
            with self._failures():
                if read_only:
                    with self._reading.connect() as connection:
                        require_present(connection)
                else:
                    with (
                        self._engine.connect() as connection,
                        _references_unchecked(connection),
                        connection.begin(),
                    ):
                        before = migrate(connection)
                        if before is not None and before < LOG_REVISION:
                            adopt(connection)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Yield a session on one consistent snapshot; nothing is written."""
        with self._failures(), Session(self._reading, expire_on_commit=False) as session:
            yield session

    def fetch(self, kind: type[R], query: Select[Any]) -> list[R]:
        """Return a record of each row that a query finds."""
        with self.read() as session:
            return [record(kind, row) for row in session.scalars(query)]

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Yield a session in one transaction, committed at the end or not at all.

        What it changes of the net is entered into the log with it, whoever writes what. Listeners
        hear of it afterwards, in this thread.
        """
        if self._read_only:
            raise RuntimeError("the database was opened to be read only")
        session = _WritingSession(self._engine, expire_on_commit=False)
        try:
            with self._failures(), session, session.begin():
                yield session
                session.flush()
                logged = record_changes(session, session.info.get("rows", {}).values())
                session.info["logged"] = logged > 0
        finally:
            # After a failure as well: a commit whose answer was lost has happened.
            change = Change(
                sites=frozenset(session.info.get("sites", ())),
                everyone=bool(session.info.get("everyone", False)),
                ids=frozenset(session.info.get("ids", ())),
                members=bool(session.info.get("members", False)),
                logged=bool(session.info.get("logged", False)),
            )
            self._tell(change)

    def _tell(self, change: Change) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener(change)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` after each commit; returns how to end that."""
        with self._lock:
            self._listeners.append(listener)

        def end() -> None:
            with self._lock:
                self._listeners.remove(listener)

        return end

    def check(self) -> None:
        """Read all of a SQLite database for damage; StorageError if there is any."""
        if self._engine.dialect.name != "sqlite":
            return  # a server looks after its files
        with self._failures(), self._reading.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(5)").scalars().all()
        if found != ["ok"]:
            where = self._url.render_as_string(hide_password=True)
            damage = "; ".join(" ".join(str(each).split()) for each in found)
            raise StorageError(
                f"the database {where} is damaged ({damage}); check its disk, and put back a "
                "backup of this file"
            )

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn a database's failures into ours, naming the database and the remedy."""
        where = self._url.render_as_string(hide_password=True)
        try:
            yield
        except exc.IntegrityError as error:
            raise ConflictError(
                f"another writer of {where} was faster ({error.orig}); read again and retry"
            ) from error
        except (exc.DBAPIError, exc.TimeoutError, sqlite3.Error) as error:
            cause = getattr(error, "orig", None) or error
            raise StorageError(
                f"the database {where} cannot be used: {cause}; {_remedy(str(cause))}. "
                "What was committed before is kept"
            ) from error


class Subject:
    """What the database has about one subject; the clock dates its changes."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock


def _remedy(cause: str) -> str:
    if "full" in cause:
        return "free some space on its disk"
    if "readonly" in cause or "read-only" in cause:
        return "make its file and folder writable for this user"
    if "unable to open" in cause:
        return "create its folder, or make it writable for this user"
    if "malformed" in cause or "not a database" in cause:
        return "put back a backup of this file"
    if "locked" in cause:
        return "stop the other process that holds it"
    return "mend its disk or its server and start again"


def _engine(url: URL, *, read_only: bool) -> Engine:
    if url.get_backend_name() != "sqlite":
        return sqlalchemy.create_engine(
            url, pool_size=POOL, max_overflow=OVERFLOW, pool_pre_ping=True
        )
    if read_only:
        path = _path_of(url)
        # No pool: each transaction looks anew whether someone has the database open.
        engine = sqlalchemy.create_engine(url, poolclass=NullPool, creator=lambda: _reader(path))
    else:
        engine = sqlalchemy.create_engine(url, pool_size=POOL, max_overflow=OVERFLOW)

        @event.listens_for(engine, "connect")
        def prepare(connection: sqlite3.Connection, _: object) -> None:
            # None: this module says BEGIN itself; the driver's own would start no transaction
            # before the first write, and reads before it would not be protected.
            connection.isolation_level = None
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
            cursor.execute("PRAGMA journal_mode = WAL")
            # FULL: each commit reaches the disk before it is reported; a receipt rests on that.
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("rootstock_read", False)
        # IMMEDIATE: takes the write lock at once, so that check-then-write is one step.
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


@contextmanager
def _references_unchecked(connection: Connection) -> Iterator[None]:
    """Let SQLite replace a table that others refer to, which is how it alters one."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        yield
        return
    driver.execute("PRAGMA foreign_keys = OFF")  # within a transaction it would do nothing
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys = ON")


def _path_of(url: URL) -> Path:
    name = url.database or ""
    return Path(unquote(urlsplit(name).path)) if name.startswith("file:") else Path(name)


def _reader(path: Path) -> sqlite3.Connection:
    """Connect to a database that must stay as it is, also in a folder that cannot be written.

    SQLite reads a database in WAL mode by way of two files beside it, which it makes where they
    are missing. They are missing when no process has the database open and none was killed: then
    its own file is all there is, and is read without them (`immutable`).
    """
    journals = (path.with_name(f"{path.name}{suffix}") for suffix in ("-wal", "-journal"))
    alone = "" if any(journal.exists() for journal in journals) else "&immutable=1"
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro{alone}",
        timeout=BUSY_MILLISECONDS / 1000,
        isolation_level=None,
        check_same_thread=False,
        uri=True,
    )

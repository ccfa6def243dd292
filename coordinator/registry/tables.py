"""The tables, as SQLAlchemy maps them. Only this package sees rows; others get records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    Enum,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    TypeDecorator,
    UniqueConstraint,
    false,
    true,
    update,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, synonym
from sqlalchemy.types import TypeEngine

from rootstock.common.documents import Document
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.numbers import MergeNumbers
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.growth.states import MergeState, SubmissionState
from rootstock.coordinator.registry.documents import EvaluationReport, EvaluationRequest
from rootstock.coordinator.registry.records import Access, Receipt


class Base(DeclarativeBase):
    """The base of all tables; `subject` of a row is the id of what a change of it concerns."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {float: Double}


class Converted(TypeDecorator[Any]):
    """A column whose values are stored in another form than they are used in."""

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = String
    cache_ok = True

    def __init__(
        self, stored: TypeEngine[Any], write: Callable[[Any], Any], read: Callable[[Any], Any]
    ) -> None:
        super().__init__()
        self.impl, self.write, self.read = stored, write, read

    def process_bind_param(self, value: Any, _dialect: Dialect) -> Any:
        """Return what is stored."""
        return None if value is None else self.write(value)

    def process_result_value(self, value: Any, _dialect: Dialect) -> Any:
        """Return what was stored as it is used."""
        return None if value is None else self.read(value)


def _document(kind: type[Document]) -> Converted:
    """Store a document as its canonical JSON."""
    return Converted(
        LargeBinary(), kind.canonical, lambda data: kind.parse(data, what=kind.__name__)
    )


def _words(kind: type[SubmissionState] | type[MergeState] | type[Access]) -> Enum:
    """Store a word as it is, so that the database can be read without this program."""
    return Enum(
        kind,
        native_enum=False,
        length=16,
        values_callable=lambda states: [state.value for state in states],
    )


class CounterRow(Base):
    """Numbers that grow by one, in the order of commits: incrementing locks the row.

    A database's own sequence would hand out numbers in the order of statements; a watcher that
    has read past a number could then miss a smaller one that commits later.
    """

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


def take(session: Session, name: str) -> int:
    """Increment a counter and hold it until the transaction ends."""
    taken = session.execute(
        update(CounterRow)
        .where(CounterRow.name == name)
        .values(value=CounterRow.value + 1)
        .returning(CounterRow.value)
    ).scalar_one()
    return int(taken)


class SiteRow(Base):
    """A lab."""

    __tablename__ = "sites"

    name: Mapped[str] = mapped_column(primary_key=True)
    public_key: Mapped[bytes] = mapped_column(LargeBinary)
    joined_at: Mapped[float]
    disabled_at: Mapped[float | None]
    disabled_reason: Mapped[str | None]


class FormerKeyRow(Base):
    """A signing key that a site had before it joined again with another one."""

    __tablename__ = "former_keys"

    site: Mapped[str] = mapped_column(ForeignKey("sites.name"), primary_key=True)
    public_key: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    replaced_at: Mapped[float]


class InvitationRow(Base):
    """Leave to join once; of the token's secret there is only a hash."""

    __tablename__ = "invitations"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    access: Mapped[Access] = mapped_column(_words(Access))
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary)
    again: Mapped[bool]
    created_at: Mapped[float]
    expires_at: Mapped[float]
    failures: Mapped[int]
    used_at: Mapped[float | None]


class CertificateRow(Base):
    """A client certificate that was issued."""

    __tablename__ = "certificates"
    __table_args__ = (Index("certificates_by_name", "name"),)

    serial: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    access: Mapped[Access] = mapped_column(_words(Access))
    issued_at: Mapped[float]
    expires_at: Mapped[float]
    revoked_at: Mapped[float | None]
    reason: Mapped[str | None]


class UploadRow(Base):
    """A manifest that a site began to ship; received once it has a receipt."""

    __tablename__ = "uploads"
    __table_args__ = (Index("uploads_by_site", "site"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    site: Mapped[str] = mapped_column(ForeignKey("sites.name"))
    kind: Mapped[str]
    manifest_digest: Mapped[str] = mapped_column(unique=True)
    manifest: Mapped[bytes] = mapped_column(LargeBinary)
    signature: Mapped[bytes] = mapped_column(LargeBinary)
    evaluation_id: Mapped[str | None]
    size: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Bytes of its blobs."""
    created_at: Mapped[float]
    touched_at: Mapped[float]
    received_at: Mapped[str | None]
    receipt_signature: Mapped[bytes | None] = mapped_column(LargeBinary)

    @property
    def receipt(self) -> Receipt | None:
        """The receipt, once the upload is received."""
        if self.received_at is None or self.receipt_signature is None:
            return None
        return Receipt(self.manifest_digest, self.id, self.received_at, self.receipt_signature)


class UploadBlobRow(Base):
    """Which blobs an upload brings."""

    __tablename__ = "upload_blobs"
    __table_args__ = (Index("upload_blobs_by_digest", "digest"),)

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"), primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True)
    held: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """Its tensors that need not travel, and where the coordinator has each: [blob, tensor]. Null:
    not decided; empty: it travels as a whole."""
    held_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")


class SubmissionRow(Base):
    """A teacher net on its way."""

    __tablename__ = "submissions"
    __table_args__ = (Index("submissions_by_state", "state"),)

    id: Mapped[str] = mapped_column(ForeignKey("uploads.id"), primary_key=True)
    category: Mapped[str]
    state: Mapped[SubmissionState] = mapped_column(_words(SubmissionState))
    reason: Mapped[str]
    created_at: Mapped[float]
    updated_at: Mapped[float]
    upload: Mapped[UploadRow] = relationship(lazy="joined", innerjoin=True)
    site: AssociationProxy[str] = association_proxy("upload", "site")
    manifest_digest: AssociationProxy[str] = association_proxy("upload", "manifest_digest")
    manifest: AssociationProxy[bytes] = association_proxy("upload", "manifest")
    signature: AssociationProxy[bytes] = association_proxy("upload", "signature")
    subject: Mapped[str] = synonym("id")


class MergeRow(Base):
    """One transplanting operation."""

    __tablename__ = "merges"
    __table_args__ = (
        UniqueConstraint(
            "submission_id", "category", "task", "operation", "attempt", name="one_merge_each"
        ),
        Index("merges_by_state", "state"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    submission_id: Mapped[str] = mapped_column(ForeignKey("submissions.id"))
    category: Mapped[str]
    task: Mapped[str]
    operation: Mapped[OperationKind] = mapped_column(Converted(String(), str, OperationKind))
    attempt: Mapped[int] = mapped_column(default=1, server_default="1")
    void: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether the net that it was judged by was rolled back: its submission is decided about
    anew."""
    state: Mapped[MergeState] = mapped_column(_words(MergeState))
    reason: Mapped[str]
    numbers: Mapped[MergeNumbers] = mapped_column(
        Converted(JSON(), MergeNumbers.flat, MergeNumbers.from_flat)
    )
    job_result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    inspection: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    step: Mapped[int] = mapped_column(BigInteger)
    steps: Mapped[int] = mapped_column(BigInteger)
    parent_version: Mapped[int | None]
    net_version: Mapped[int | None]
    candidate: Mapped[Candidate | None] = mapped_column(Converted(String(), str, Candidate))
    released: Mapped[bool] = mapped_column(server_default=true())
    decision: Mapped[str | None]
    decision_reason: Mapped[str | None]
    mlflow_run_id: Mapped[str | None]
    logged: Mapped[bool]
    created_at: Mapped[float]
    updated_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    subject: Mapped[str] = synonym("id")


class EvaluationRow(Base):
    """A question to the owning lab; one a merge, or two: what needs no learning comes first."""

    __tablename__ = "evaluations"
    __table_args__ = (Index("evaluations_by_merge", "merge_id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    merge_id: Mapped[str] = mapped_column(ForeignKey("merges.id"))
    site: Mapped[str] = mapped_column(ForeignKey("sites.name"))
    request: Mapped[EvaluationRequest] = mapped_column(_document(EvaluationRequest))
    report: Mapped[EvaluationReport | None] = mapped_column(_document(EvaluationReport))
    requested_at: Mapped[float]
    reported_at: Mapped[float | None]
    subject: Mapped[str] = synonym("merge_id")


class NetVersionRow(Base):
    """A state of the transplant net."""

    __tablename__ = "net_versions"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(unique=True)
    tree: Mapped[str]
    parent: Mapped[int | None] = mapped_column(ForeignKey("net_versions.number"))
    merge_id: Mapped[str] = mapped_column(ForeignKey("merges.id"), unique=True)
    created_at: Mapped[float]
    rolled_back_at: Mapped[float | None]


class EventRow(Base):
    """What a site is to hear of; `site` is null for all sites."""

    __tablename__ = "events"
    __table_args__ = (Index("events_by_site", "site", "cursor"),)

    cursor: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    site: Mapped[str | None] = mapped_column(ForeignKey("sites.name"))
    kind: Mapped[str]
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[float]


class LogRow(Base):
    """An entry of the log, and the hashes of the perfect subtrees of which it is the last."""

    __tablename__ = "log"
    __table_args__ = (Index("log_by_subject", "kind", "about", "index"),)

    index: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str]
    about: Mapped[str]
    """Id of the entry's subject; a change of the log itself wakes nobody."""
    entry: Mapped[bytes] = mapped_column(LargeBinary)
    """Its canonical form, over which the tree is."""
    hashes: Mapped[bytes] = mapped_column(LargeBinary)
    """32 bytes a level, from the leaf upwards."""

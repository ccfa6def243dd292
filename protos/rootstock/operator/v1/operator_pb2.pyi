from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class InviteRequest(_message.Message):
    __slots__ = ("name", "access", "seconds", "again")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    AGAIN_FIELD_NUMBER: _ClassVar[int]
    name: str
    access: str
    seconds: float
    again: bool
    def __init__(self, name: _Optional[str] = ..., access: _Optional[str] = ..., seconds: _Optional[float] = ..., again: _Optional[bool] = ...) -> None: ...

class InviteResponse(_message.Message):
    __slots__ = ("token", "address", "authority")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    token: str
    address: str
    authority: str
    def __init__(self, token: _Optional[str] = ..., address: _Optional[str] = ..., authority: _Optional[str] = ...) -> None: ...

class ListMembersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Member(_message.Message):
    __slots__ = ("name", "access", "state", "reason", "expires_at")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    name: str
    access: str
    state: str
    reason: str
    expires_at: float
    def __init__(self, name: _Optional[str] = ..., access: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., expires_at: _Optional[float] = ...) -> None: ...

class ListMembersResponse(_message.Message):
    __slots__ = ("members",)
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[Member]
    def __init__(self, members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ...) -> None: ...

class SetSiteEnabledRequest(_message.Message):
    __slots__ = ("name", "enabled", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    enabled: bool
    reason: str
    def __init__(self, name: _Optional[str] = ..., enabled: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class SetSiteEnabledResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RevokeMemberRequest(_message.Message):
    __slots__ = ("name", "operator", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    operator: bool
    reason: str
    def __init__(self, name: _Optional[str] = ..., operator: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class RevokeMemberResponse(_message.Message):
    __slots__ = ("revoked",)
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    revoked: int
    def __init__(self, revoked: _Optional[int] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DecideMergeRequest(_message.Message):
    __slots__ = ("merge_id", "approve", "reason")
    MERGE_ID_FIELD_NUMBER: _ClassVar[int]
    APPROVE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    merge_id: str
    approve: bool
    reason: str
    def __init__(self, merge_id: _Optional[str] = ..., approve: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class DecideMergeResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: str
    def __init__(self, state: _Optional[str] = ...) -> None: ...

class GrowRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GrowResponse(_message.Message):
    __slots__ = ("merge_ids",)
    MERGE_IDS_FIELD_NUMBER: _ClassVar[int]
    merge_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, merge_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ForgetSamplesRequest(_message.Message):
    __slots__ = ("submission_id",)
    SUBMISSION_ID_FIELD_NUMBER: _ClassVar[int]
    submission_id: str
    def __init__(self, submission_id: _Optional[str] = ...) -> None: ...

class ForgetSamplesResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class CollectGarbageRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BlobCount(_message.Message):
    __slots__ = ("blobs", "bytes")
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    blobs: int
    bytes: int
    def __init__(self, blobs: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class CollectGarbageResponse(_message.Message):
    __slots__ = ("kept", "deleted", "digests")
    class KeptEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: BlobCount
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[BlobCount, _Mapping]] = ...) -> None: ...
    KEPT_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    kept: _containers.MessageMap[str, BlobCount]
    deleted: BlobCount
    digests: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kept: _Optional[_Mapping[str, BlobCount]] = ..., deleted: _Optional[_Union[BlobCount, _Mapping]] = ..., digests: _Optional[_Iterable[str]] = ...) -> None: ...

class RollBackRequest(_message.Message):
    __slots__ = ("version", "and_later", "reason")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AND_LATER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    version: int
    and_later: bool
    reason: str
    def __init__(self, version: _Optional[int] = ..., and_later: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class RollBackResponse(_message.Message):
    __slots__ = ("versions", "head")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedScalarFieldContainer[int]
    head: int
    def __init__(self, versions: _Optional[_Iterable[int]] = ..., head: _Optional[int] = ...) -> None: ...

class LearnTaskRequest(_message.Message):
    __slots__ = ("task", "learned", "source")
    TASK_FIELD_NUMBER: _ClassVar[int]
    LEARNED_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    task: str
    learned: bytes
    source: str
    def __init__(self, task: _Optional[str] = ..., learned: _Optional[bytes] = ..., source: _Optional[str] = ...) -> None: ...

class FoundNetRequest(_message.Message):
    __slots__ = ("merge_id", "learned")
    MERGE_ID_FIELD_NUMBER: _ClassVar[int]
    LEARNED_FIELD_NUMBER: _ClassVar[int]
    merge_id: str
    learned: bytes
    def __init__(self, merge_id: _Optional[str] = ..., learned: _Optional[bytes] = ...) -> None: ...

class ConnectRequest(_message.Message):
    __slots__ = ("category", "task", "join")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    category: str
    task: str
    join: bytes
    def __init__(self, category: _Optional[str] = ..., task: _Optional[str] = ..., join: _Optional[bytes] = ...) -> None: ...

class QueuedMerges(_message.Message):
    __slots__ = ("merge_ids",)
    MERGE_IDS_FIELD_NUMBER: _ClassVar[int]
    merge_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, merge_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class PublishHeadsRequest(_message.Message):
    __slots__ = ("origin", "task_modules", "rotation")
    class TaskModulesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    TASK_MODULES_FIELD_NUMBER: _ClassVar[int]
    ROTATION_FIELD_NUMBER: _ClassVar[int]
    origin: str
    task_modules: _containers.ScalarMap[str, bytes]
    rotation: bytes
    def __init__(self, origin: _Optional[str] = ..., task_modules: _Optional[_Mapping[str, bytes]] = ..., rotation: _Optional[bytes] = ...) -> None: ...

class RetireHeadsRequest(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class PublishedHeads(_message.Message):
    __slots__ = ("heads",)
    HEADS_FIELD_NUMBER: _ClassVar[int]
    heads: bytes
    def __init__(self, heads: _Optional[bytes] = ...) -> None: ...

class SiteStatus(_message.Message):
    __slots__ = ("name", "watching")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WATCHING_FIELD_NUMBER: _ClassVar[int]
    name: str
    watching: bool
    def __init__(self, name: _Optional[str] = ..., watching: _Optional[bool] = ...) -> None: ...

class SubmissionStatus(_message.Message):
    __slots__ = ("submission_id", "site", "category", "state", "reason", "bytes_received", "bytes_total", "bytes_held")
    SUBMISSION_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BYTES_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    BYTES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BYTES_HELD_FIELD_NUMBER: _ClassVar[int]
    submission_id: str
    site: str
    category: str
    state: str
    reason: str
    bytes_received: int
    bytes_total: int
    bytes_held: int
    def __init__(self, submission_id: _Optional[str] = ..., site: _Optional[str] = ..., category: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., bytes_received: _Optional[int] = ..., bytes_total: _Optional[int] = ..., bytes_held: _Optional[int] = ...) -> None: ...

class MergeStatus(_message.Message):
    __slots__ = ("merge_id", "submission_id", "category", "task", "operation", "state", "reason", "step", "steps", "seconds", "numbers", "net_version", "logged", "held")
    class NumbersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    MERGE_ID_FIELD_NUMBER: _ClassVar[int]
    SUBMISSION_ID_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    NET_VERSION_FIELD_NUMBER: _ClassVar[int]
    LOGGED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    merge_id: str
    submission_id: str
    category: str
    task: str
    operation: str
    state: str
    reason: str
    step: int
    steps: int
    seconds: float
    numbers: _containers.ScalarMap[str, float]
    net_version: int
    logged: bool
    held: bool
    def __init__(self, merge_id: _Optional[str] = ..., submission_id: _Optional[str] = ..., category: _Optional[str] = ..., task: _Optional[str] = ..., operation: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., step: _Optional[int] = ..., steps: _Optional[int] = ..., seconds: _Optional[float] = ..., numbers: _Optional[_Mapping[str, float]] = ..., net_version: _Optional[int] = ..., logged: _Optional[bool] = ..., held: _Optional[bool] = ...) -> None: ...

class HistoryStatus(_message.Message):
    __slots__ = ("name", "page", "logged", "waiting", "error", "failing_since")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    LOGGED_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FAILING_SINCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    page: str
    logged: int
    waiting: int
    error: str
    failing_since: str
    def __init__(self, name: _Optional[str] = ..., page: _Optional[str] = ..., logged: _Optional[int] = ..., waiting: _Optional[int] = ..., error: _Optional[str] = ..., failing_since: _Optional[str] = ...) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("net", "net_version", "mlflow_uri", "mlflow_experiment_id", "sites", "submissions", "merges", "coordinator_version", "history")
    NET_FIELD_NUMBER: _ClassVar[int]
    NET_VERSION_FIELD_NUMBER: _ClassVar[int]
    MLFLOW_URI_FIELD_NUMBER: _ClassVar[int]
    MLFLOW_EXPERIMENT_ID_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    SUBMISSIONS_FIELD_NUMBER: _ClassVar[int]
    MERGES_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_VERSION_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    net: str
    net_version: int
    mlflow_uri: str
    mlflow_experiment_id: str
    sites: _containers.RepeatedCompositeFieldContainer[SiteStatus]
    submissions: _containers.RepeatedCompositeFieldContainer[SubmissionStatus]
    merges: _containers.RepeatedCompositeFieldContainer[MergeStatus]
    coordinator_version: str
    history: HistoryStatus
    def __init__(self, net: _Optional[str] = ..., net_version: _Optional[int] = ..., mlflow_uri: _Optional[str] = ..., mlflow_experiment_id: _Optional[str] = ..., sites: _Optional[_Iterable[_Union[SiteStatus, _Mapping]]] = ..., submissions: _Optional[_Iterable[_Union[SubmissionStatus, _Mapping]]] = ..., merges: _Optional[_Iterable[_Union[MergeStatus, _Mapping]]] = ..., coordinator_version: _Optional[str] = ..., history: _Optional[_Union[HistoryStatus, _Mapping]] = ...) -> None: ...

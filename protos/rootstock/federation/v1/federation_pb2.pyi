from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RenewCertificateRequest(_message.Message):
    __slots__ = ("certificate_request",)
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    certificate_request: bytes
    def __init__(self, certificate_request: _Optional[bytes] = ...) -> None: ...

class RenewCertificateResponse(_message.Message):
    __slots__ = ("certificate", "authority")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    authority: bytes
    def __init__(self, certificate: _Optional[bytes] = ..., authority: _Optional[bytes] = ...) -> None: ...

class GetLogHeadRequest(_message.Message):
    __slots__ = ("known_size", "size")
    KNOWN_SIZE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    known_size: int
    size: int
    def __init__(self, known_size: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class GetLogHeadResponse(_message.Message):
    __slots__ = ("head", "proof")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    head: bytes
    proof: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, head: _Optional[bytes] = ..., proof: _Optional[_Iterable[bytes]] = ...) -> None: ...

class VersionRange(_message.Message):
    __slots__ = ("minimum", "maximum")
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    minimum: int
    maximum: int
    def __init__(self, minimum: _Optional[int] = ..., maximum: _Optional[int] = ...) -> None: ...

class GetPlanRequest(_message.Message):
    __slots__ = ("protocol", "agent_version", "category", "tasks", "new_version")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    NEW_VERSION_FIELD_NUMBER: _ClassVar[int]
    protocol: VersionRange
    agent_version: str
    category: str
    tasks: _containers.RepeatedScalarFieldContainer[str]
    new_version: bool
    def __init__(self, protocol: _Optional[_Union[VersionRange, _Mapping]] = ..., agent_version: _Optional[str] = ..., category: _Optional[str] = ..., tasks: _Optional[_Iterable[str]] = ..., new_version: _Optional[bool] = ...) -> None: ...

class GetPlanResponse(_message.Message):
    __slots__ = ("protocol", "plan", "plan_digest", "coordinator_version", "heads", "refusal")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_VERSION_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    plan: bytes
    plan_digest: str
    coordinator_version: str
    heads: bytes
    refusal: str
    def __init__(self, protocol: _Optional[int] = ..., plan: _Optional[bytes] = ..., plan_digest: _Optional[str] = ..., coordinator_version: _Optional[str] = ..., heads: _Optional[bytes] = ..., refusal: _Optional[str] = ...) -> None: ...

class BeginUploadRequest(_message.Message):
    __slots__ = ("manifest", "signature", "leaves_out")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    LEAVES_OUT_FIELD_NUMBER: _ClassVar[int]
    manifest: bytes
    signature: bytes
    leaves_out: bool
    def __init__(self, manifest: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., leaves_out: _Optional[bool] = ...) -> None: ...

class MissingBlob(_message.Message):
    __slots__ = ("digest", "size", "durable_offset", "held_tensors")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DURABLE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    HELD_TENSORS_FIELD_NUMBER: _ClassVar[int]
    digest: str
    size: int
    durable_offset: int
    held_tensors: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, digest: _Optional[str] = ..., size: _Optional[int] = ..., durable_offset: _Optional[int] = ..., held_tensors: _Optional[_Iterable[str]] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("manifest_digest", "submission_id", "received_at", "signature", "head", "entry", "inclusion")
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SUBMISSION_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    INCLUSION_FIELD_NUMBER: _ClassVar[int]
    manifest_digest: str
    submission_id: str
    received_at: str
    signature: bytes
    head: bytes
    entry: bytes
    inclusion: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, manifest_digest: _Optional[str] = ..., submission_id: _Optional[str] = ..., received_at: _Optional[str] = ..., signature: _Optional[bytes] = ..., head: _Optional[bytes] = ..., entry: _Optional[bytes] = ..., inclusion: _Optional[_Iterable[bytes]] = ...) -> None: ...

class BeginUploadResponse(_message.Message):
    __slots__ = ("upload_id", "missing", "receipt")
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    upload_id: str
    missing: _containers.RepeatedCompositeFieldContainer[MissingBlob]
    receipt: Receipt
    def __init__(self, upload_id: _Optional[str] = ..., missing: _Optional[_Iterable[_Union[MissingBlob, _Mapping]]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ...) -> None: ...

class UploadRequest(_message.Message):
    __slots__ = ("upload_id", "digest", "offset", "data", "crc32", "stripped")
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    STRIPPED_FIELD_NUMBER: _ClassVar[int]
    upload_id: str
    digest: str
    offset: int
    data: bytes
    crc32: int
    stripped: bool
    def __init__(self, upload_id: _Optional[str] = ..., digest: _Optional[str] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., crc32: _Optional[int] = ..., stripped: _Optional[bool] = ...) -> None: ...

class UploadResponse(_message.Message):
    __slots__ = ("digest", "durable_offset")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    DURABLE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    digest: str
    durable_offset: int
    def __init__(self, digest: _Optional[str] = ..., durable_offset: _Optional[int] = ...) -> None: ...

class CommitUploadRequest(_message.Message):
    __slots__ = ("upload_id",)
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    upload_id: str
    def __init__(self, upload_id: _Optional[str] = ...) -> None: ...

class CommitUploadResponse(_message.Message):
    __slots__ = ("receipt",)
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    receipt: Receipt
    def __init__(self, receipt: _Optional[_Union[Receipt, _Mapping]] = ...) -> None: ...

class DownloadRequest(_message.Message):
    __slots__ = ("digest", "offset")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    digest: str
    offset: int
    def __init__(self, digest: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class DownloadResponse(_message.Message):
    __slots__ = ("offset", "data", "crc32", "total_size")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    crc32: int
    total_size: int
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ..., crc32: _Optional[int] = ..., total_size: _Optional[int] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("cursor", "instance")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    cursor: int
    instance: str
    def __init__(self, cursor: _Optional[int] = ..., instance: _Optional[str] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Superseded(_message.Message):
    __slots__ = ("instance",)
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    instance: str
    def __init__(self, instance: _Optional[str] = ...) -> None: ...

class SubmissionStateChanged(_message.Message):
    __slots__ = ("submission_id", "manifest_digest", "state", "reason")
    SUBMISSION_ID_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    submission_id: str
    manifest_digest: str
    state: str
    reason: str
    def __init__(self, submission_id: _Optional[str] = ..., manifest_digest: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("name", "adapter")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    name: str
    adapter: bytes
    def __init__(self, name: _Optional[str] = ..., adapter: _Optional[bytes] = ...) -> None: ...

class EvaluationRequest(_message.Message):
    __slots__ = ("evaluation_id", "merge_id", "manifest_digest", "task", "architecture", "task_module", "candidates", "refine", "refinement_spec", "expires_at", "signature", "rest")
    EVALUATION_ID_FIELD_NUMBER: _ClassVar[int]
    MERGE_ID_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    TASK_MODULE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    REFINE_FIELD_NUMBER: _ClassVar[int]
    REFINEMENT_SPEC_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    REST_FIELD_NUMBER: _ClassVar[int]
    evaluation_id: str
    merge_id: str
    manifest_digest: str
    task: str
    architecture: bytes
    task_module: bytes
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    refine: bool
    refinement_spec: bytes
    expires_at: int
    signature: bytes
    rest: RestQuestion
    def __init__(self, evaluation_id: _Optional[str] = ..., merge_id: _Optional[str] = ..., manifest_digest: _Optional[str] = ..., task: _Optional[str] = ..., architecture: _Optional[bytes] = ..., task_module: _Optional[bytes] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., refine: _Optional[bool] = ..., refinement_spec: _Optional[bytes] = ..., expires_at: _Optional[int] = ..., signature: _Optional[bytes] = ..., rest: _Optional[_Union[RestQuestion, _Mapping]] = ...) -> None: ...

class RestQuestion(_message.Message):
    __slots__ = ("category", "category_module", "architecture", "scale", "bias")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_MODULE_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    category: str
    category_module: bytes
    architecture: bytes
    scale: float
    bias: float
    def __init__(self, category: _Optional[str] = ..., category_module: _Optional[bytes] = ..., architecture: _Optional[bytes] = ..., scale: _Optional[float] = ..., bias: _Optional[float] = ...) -> None: ...

class NetVersionCommitted(_message.Message):
    __slots__ = ("number", "digest", "category", "task")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    number: int
    digest: str
    category: str
    task: str
    def __init__(self, number: _Optional[int] = ..., digest: _Optional[str] = ..., category: _Optional[str] = ..., task: _Optional[str] = ...) -> None: ...

class MergeStateChanged(_message.Message):
    __slots__ = ("merge_id", "state", "reason")
    MERGE_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    merge_id: str
    state: str
    reason: str
    def __init__(self, merge_id: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class SamplesForgotten(_message.Message):
    __slots__ = ("submission_id", "count")
    SUBMISSION_ID_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    submission_id: str
    count: int
    def __init__(self, submission_id: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class HeadsChanged(_message.Message):
    __slots__ = ("number", "origin")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    number: int
    origin: str
    def __init__(self, number: _Optional[int] = ..., origin: _Optional[str] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("cursor", "heartbeat", "submission", "evaluation", "version", "superseded", "merge", "samples", "heads")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    SUBMISSION_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_FIELD_NUMBER: _ClassVar[int]
    MERGE_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    cursor: int
    heartbeat: Heartbeat
    submission: SubmissionStateChanged
    evaluation: EvaluationRequest
    version: NetVersionCommitted
    superseded: Superseded
    merge: MergeStateChanged
    samples: SamplesForgotten
    heads: HeadsChanged
    def __init__(self, cursor: _Optional[int] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., submission: _Optional[_Union[SubmissionStateChanged, _Mapping]] = ..., evaluation: _Optional[_Union[EvaluationRequest, _Mapping]] = ..., version: _Optional[_Union[NetVersionCommitted, _Mapping]] = ..., superseded: _Optional[_Union[Superseded, _Mapping]] = ..., merge: _Optional[_Union[MergeStateChanged, _Mapping]] = ..., samples: _Optional[_Union[SamplesForgotten, _Mapping]] = ..., heads: _Optional[_Union[HeadsChanged, _Mapping]] = ...) -> None: ...

class OutputCalibration(_message.Message):
    __slots__ = ("scale", "bias", "error", "mean_iou")
    SCALE_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    MEAN_IOU_FIELD_NUMBER: _ClassVar[int]
    scale: float
    bias: float
    error: float
    mean_iou: float
    def __init__(self, scale: _Optional[float] = ..., bias: _Optional[float] = ..., error: _Optional[float] = ..., mean_iou: _Optional[float] = ...) -> None: ...

class CandidateResult(_message.Message):
    __slots__ = ("name", "error", "samples", "calibration", "mean_iou")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    MEAN_IOU_FIELD_NUMBER: _ClassVar[int]
    name: str
    error: float
    samples: int
    calibration: OutputCalibration
    mean_iou: float
    def __init__(self, name: _Optional[str] = ..., error: _Optional[float] = ..., samples: _Optional[int] = ..., calibration: _Optional[_Union[OutputCalibration, _Mapping]] = ..., mean_iou: _Optional[float] = ...) -> None: ...

class ReportEvaluationRequest(_message.Message):
    __slots__ = ("evaluation_id", "results", "refinement_manifest_digest", "refined_error", "refinement_seconds", "refinement_steps", "failure", "refined_calibration", "refined_mean_iou", "rest")
    EVALUATION_ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    REFINEMENT_MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REFINED_ERROR_FIELD_NUMBER: _ClassVar[int]
    REFINEMENT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REFINEMENT_STEPS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    REFINED_CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    REFINED_MEAN_IOU_FIELD_NUMBER: _ClassVar[int]
    REST_FIELD_NUMBER: _ClassVar[int]
    evaluation_id: str
    results: _containers.RepeatedCompositeFieldContainer[CandidateResult]
    refinement_manifest_digest: str
    refined_error: float
    refinement_seconds: float
    refinement_steps: int
    failure: str
    refined_calibration: OutputCalibration
    refined_mean_iou: float
    rest: RestAnswer
    def __init__(self, evaluation_id: _Optional[str] = ..., results: _Optional[_Iterable[_Union[CandidateResult, _Mapping]]] = ..., refinement_manifest_digest: _Optional[str] = ..., refined_error: _Optional[float] = ..., refinement_seconds: _Optional[float] = ..., refinement_steps: _Optional[int] = ..., failure: _Optional[str] = ..., refined_calibration: _Optional[_Union[OutputCalibration, _Mapping]] = ..., refined_mean_iou: _Optional[float] = ..., rest: _Optional[_Union[RestAnswer, _Mapping]] = ...) -> None: ...

class RestAnswer(_message.Message):
    __slots__ = ("yes", "samples")
    YES_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    yes: float
    samples: int
    def __init__(self, yes: _Optional[float] = ..., samples: _Optional[int] = ...) -> None: ...

class ReportEvaluationResponse(_message.Message):
    __slots__ = ("first",)
    FIRST_FIELD_NUMBER: _ClassVar[int]
    first: bool
    def __init__(self, first: _Optional[bool] = ...) -> None: ...

"""coordinator.toml: everything that the coordinator is told."""

from __future__ import annotations

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, field_validator, model_validator

from rootstock.common.config import ConfiguredPath, expand
from rootstock.common.distillation.settings import (
    BackDistillationSettings,
    DreamSettings,
    MethodName,
    MethodSettings,
    Policy,
    Start,
    TeachingSettings,
)
from rootstock.common.documents import Document
from rootstock.common.nets.spec import ArchitectureSpec, Name, TaskSpec
from rootstock.common.protocol import WITNESSES_PER_MERGE, Limits
from rootstock.common.urls import masked
from rootstock.common.weights.manifest import Digest


class ServerConfig(Document):
    """Where the coordinator listens."""

    listen: str = "127.0.0.1:50051"
    """host:port for those that have joined; port 0 takes a free one, written to `<state>/address`.
    """
    join_listen: str | None = None
    """host:port for those that are to join with an invitation; port 0 takes a free one, written to
    `<state>/join-address`. None: nobody can join."""
    host: str | None = None
    """The name or address of this machine as labs reach it, for invitations. None: the host of
    `join_listen`."""
    heartbeat_seconds: float = Field(default=10.0, gt=0, le=3600)
    max_open_uploads_per_site: int = Field(default=4, ge=1, le=1000)
    max_open_bytes_per_site: int = Field(default=16 << 30, ge=1 << 10)
    """Bytes of all blobs of a site's open uploads. 16 GiB are 28 VGG-16s in float32."""
    min_free_bytes: int = Field(default=64 << 20, ge=0)
    """What stays free on the disk of partial uploads: an upload that would need it waits."""
    max_open_merges_per_site: int = Field(default=64, ge=1, le=100_000)
    """A site with so many open merges ships its next teacher net when some have ended."""
    max_uploads_per_hour_per_site: int = Field(default=60, ge=1, le=1_000_000)
    max_uploads_per_hour: int = Field(default=1000, ge=1, le=1_000_000)
    """Teacher nets and refined adapters that are begun; what is resumed does not count."""
    max_stored_bytes_per_site: int = Field(default=256 << 30, ge=1 << 10)
    max_stored_bytes: int = Field(default=4 << 40, ge=1 << 10)
    """Bytes of the blobs that were shipped, but for those that are collected: of what was refused,
    given up, or came to nothing."""

    @model_validator(mode="after")
    def _listeners_are_two(self) -> Self:
        if self.join_listen == self.listen and not self.listen.endswith(":0"):
            raise ValueError(
                f'listen and join_listen are both "{self.listen}"; give each a port of its own'
            )
        return self


class IdentityConfig(Document):
    """How long certificates are good for, in days; those in use are renewed at half of it."""

    authority_days: float = Field(default=3650, gt=0, le=36_500)
    server_days: float = Field(default=90, gt=0, le=36_500)
    client_days: float = Field(default=90, gt=0, le=36_500)
    """Of sites and operators. Who stays away for longer has to be invited again."""


class PlanConfig(Document):
    """What labs are asked to train."""

    architecture: ArchitectureSpec
    tasks: tuple[TaskSpec, ...] = (TaskSpec(name="classification"),)
    seed: int = Field(default=0, ge=0)
    """Seed of the common initial weights, or of what published ones lack: a last layer."""
    start: str = Field(default="seed", max_length=4096)
    """Where the common initial weights are from: "seed" draws them, "file:PATH" (safetensors, or a
    state dict of torch's), "package:NAME" of an installed package, "torchvision:WEIGHTS" (for
    example torchvision:ResNet18_Weights.IMAGENET1K_V1). Read once, when the plan is made."""
    licence: str | None = Field(default=None, max_length=200)
    """Of the published weights, where their source does not say it."""
    heads: Literal["none", "founder"] = "none"
    """Auxiliary heads that labs with recipe `compatible` train below: "founder" publishes the
    founding net's task modules as soon as all of the plan's tasks are there. By hand, at any time:
    `rootstock coordinator heads publish`."""
    limits: Limits = Limits()

    @field_validator("architecture")
    @classmethod
    def _has_one_extractor(cls, spec: ArchitectureSpec) -> ArchitectureSpec:
        if spec.extractor is not None:
            raise ValueError(
                "the plan's net has the extractor of its own architecture; a lab chooses another "
                "with training.extractor in site.toml"
            )
        return spec


class AdmissionConfig(Document):
    """What is not let in besides what breaks a rule."""

    revoked: tuple[Digest, ...] = Field(default=(), max_length=10_000)
    """SHA-256 of modules, or of whole manifests, that are not to come in again, whoever ships them:
    `rootstock net show` and `coordinator status --json` name them. Read at start."""
    probe_seconds: float = Field(default=120.0, gt=0, le=86_400)
    """How long a teacher net may take to answer the probe's 42 synthetic images."""


class JobsConfig(Document):
    """What one back-distillation actor takes of the Ray cluster."""

    ray_address: str | None = None
    """None starts a local Ray; "auto" or host:port joins a cluster."""
    num_cpus: float = Field(default=1, gt=0)
    num_gpus: float = Field(default=0, ge=0)
    local_cpus: int | None = Field(default=None, ge=1)
    """CPUs of a local Ray; None takes all of the machine's."""
    checkpoint_steps: int = Field(default=50, ge=1)
    max_restarts: int = Field(default=3, ge=0)
    max_per_site: int = Field(default=2, ge=1, le=1000)
    """Merges of one site whose jobs run or wait for Ray at once; its others wait for these."""


class DistillationConfig(BackDistillationSettings):
    """How adapters are learned at the coordinator (METHODS.md section 1).

    Steps, rates, draws and seed are `BackDistillationSettings`'.
    """

    zero_sample_method: MethodName = MethodName.AUTO
    """One that needs no samples."""
    few_sample_method: MethodName = MethodName.AUTO
    """What learns on the samples that a lab shares."""
    start: Start = "closed-form"
    """Where methods that take steps begin."""
    convs: int = Field(default=1, ge=1, le=8)
    kernel: Literal[1, 3] = 3
    ridge: float = Field(default=1.0, ge=0, le=1e6)
    """Relative to the mean of the normal matrix's diagonal. Of 1e-6 to 10, 1 was best on digits."""
    dream: DreamSettings = DreamSettings()
    teaching: TeachingSettings = TeachingSettings()
    """What `dream` and `auto` show the teacher; `steps` above are the other methods'."""

    @field_validator("zero_sample_method")
    @classmethod
    def _needs_no_samples(cls, name: MethodName) -> MethodName:
        if name.needs_samples:
            serving = ", ".join(known for known in MethodName if not known.needs_samples)
            raise ValueError(f"is none of {serving}; '{name}' learns from samples")
        return name

    def method_settings(self) -> MethodSettings:
        """Return what methods are told."""
        learning = {name: getattr(self, name) for name in BackDistillationSettings.model_fields}
        return MethodSettings(
            start=self.start,
            ridge=self.ridge,
            dream=self.dream,
            teaching=self.teaching,
            learning=BackDistillationSettings.model_validate(learning),
        )


class MapTeachingSettings(TeachingSettings):
    """What the teacher is shown where it labels pixels: each view holds a thousand answers."""

    drawn: int = Field(default=600, ge=0, le=1_000_000)
    sample_views: int = Field(default=600, ge=0, le=1_000_000)
    steps: int = Field(default=150, ge=1, le=1_000_000)
    batch_size: int = Field(default=32, ge=1, le=65_536)


class SegmentationConfig(DistillationConfig):
    """How adapters below a segmentation are learned; the defaults are Experiment 3's.

    No dream has an answer for every pixel, so `auto` does without.
    """

    start: Start = "matched"
    kernel: Literal[1, 3] = 1
    ridge: float = Field(default=1e-2, ge=0, le=1e6)
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    steps: int = Field(default=150, ge=0, le=1_000_000)
    batch_size: int = Field(default=32, ge=1, le=65_536)
    distillation: float = Field(default=1.0, ge=0, le=1e6)
    policy: Policy = "exp3"
    draws: int = Field(default=128, ge=1, le=1_000_000)
    teaching: MapTeachingSettings = MapTeachingSettings()


class AcceptanceRule(Document):
    """When a candidate may be merged; errors are percentages on the lab's validation data."""

    max_error: float = Field(default=45.0, ge=0, le=100)
    max_above_teacher: float = Field(default=15.0, ge=0, le=100)
    take: Literal["best", "first"] = "best"
    """"first" asks the lab about no adapter and the closed form before anything is learned, and
    takes the first candidate within the two bounds above, simplest first: what labs with recipe
    `compatible` ship often needs no more. "best" learns at once and takes the lowest error."""


class AcceptanceConfig(AcceptanceRule):
    """The rule for every task, rules for single tasks, and when an operator has the last word."""

    tasks: dict[Name, AcceptanceRule] = Field(default_factory=dict)
    """By task; what is left out of a task's rule is the default, not this table's."""
    review: Literal["never", "failing", "always"] = "never"
    """Which merges wait for `rootstock coordinator approve` or `reject` once their numbers are
    there: none, those that break the rule, or all. The others follow the rule."""
    first: Literal["review", "rule"] = "review"
    """Whether a founding, and the first merge of each lab, wait for the operator, too: nobody has
    seen anything of that lab yet."""
    min_samples: int = Field(default=20, ge=0, le=1_000_000)
    """Validation images that a lab's numbers must rest on; a merge with fewer waits for the
    operator. The operator's own samples judge from as many on, too."""

    def rule(self, task: str) -> AcceptanceRule:
        """Return what a task's merges are held against."""
        return self.tasks.get(task, self)


class SamplesConfig(Document):
    """Samples that the coordinator's operator has; no lab's."""

    folder: ConfiguredPath | None = None
    """Holds CATEGORY/yes/… and CATEGORY/no/… images, which join those that a category's lab shares.
    None: only what labs share."""
    grey_range: tuple[float, float] | None = None
    """Grey values that become black and white, in pictures of more than 8 bits of grey."""


class GrowthConfig(Document):
    """When planned operations begin."""

    automatic: bool = True
    """False holds every operation, shown by `rootstock net plan`, until `rootstock net grow`."""


class EvaluationConfig(Document):
    """What is asked of the owning lab."""

    refine: bool = True
    patience_days: float = Field(default=30.0, gt=0, le=36_500)
    """How long a lab may take to answer; then its merge fails, and the lab can ship again."""


class WitnessesConfig(Document):
    """Other labs' say about a join: how often it says yes on images that do not show its category.

    A lab alone says how good its merge is. These labs run the join on their own rest, and answer
    with that share alone; a lab that is asked downloads the modules of the join.
    """

    number: int = Field(default=2, ge=0, le=WITNESSES_PER_MERGE)
    """Labs that are asked about each new category, of those with a category in the net; 0: none.
    """
    max_yes: float = Field(default=20.0, ge=0, le=100)
    """Percent; a join with more at any of them breaks the rule, as one with too high an error. With
    few images the share has to be above that beyond chance (one-sided 95%). One that the lab's own
    report explains, up to twice the error that it states, waits for the operator instead, where
    `unsure` says that he is asked."""
    patience_days: float = Field(default=3.0, gt=0, le=36_500)
    """How long they may take."""
    unsure: Literal["review", "rule"] = "review"
    """Whether a merge waits for the operator, or goes on, about which no answer counts by then, or
    with a share above `max_yes` that may be chance."""


class HistoryConfig(Document):
    """Where merges are shown to people."""

    mlflow_uri: str = "http://127.0.0.1:5000"
    """Address of an MLflow server. A name and a password are best given to the coordinator's
    process as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; in the address they work, and
    are shown nowhere."""
    wait_seconds: float = Field(default=60.0, ge=0)
    """How long MLflow's server may take to come up: it is asked twice a second meanwhile. The
    coordinator serves labs from its start, with MLflow or without."""
    retry_seconds: float = Field(default=30.0, gt=0)
    """Longest pause before what MLflow does not take is logged again, for as long as it takes."""

    @field_validator("mlflow_uri")
    @classmethod
    def _is_a_server(cls, uri: str) -> str:
        example = "needs the address of an MLflow server, such as http://127.0.0.1:5000"
        if uri.split(":")[0] in ("file", "sqlite", "mysql", "postgresql", "mssql"):
            raise ValueError(
                f"{example}; a folder or a database is the server's own: start one with `mlflow "
                "server --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000`"
            )
        try:
            parts = urlsplit(uri)
        except ValueError:  # its words may hold the password
            raise ValueError(example) from None
        if not uri.isprintable() or " " in uri or parts.scheme not in ("http", "https"):
            raise ValueError(example)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if port == 0:
            raise ValueError(f"{example}; its port is a number from 1 to 65535") from None
        if not parts.hostname:
            raise ValueError(f"{example}; it names no host")
        if parts.query or parts.fragment:
            raise ValueError(f"{example}; leave out what follows '?' or '#', it names a page")
        return uri.rstrip("/")

    @property
    def address(self) -> str:
        """The server's address as people may see it, its password masked."""
        return masked(self.mlflow_uri)


class GarbageConfig(Document):
    """When blobs that nothing needs any more are deleted from the store.

    They are what a job's end, a rejection, a refusal or a rolled back database transaction leaves
    over. No net version ever loses a blob, those rolled back included.
    """

    automatic: bool = True
    """False leaves it to `rootstock coordinator gc`."""
    interval_seconds: float = Field(default=24 * 3600.0, ge=60)
    """Between two collections; the first is at start."""
    grace_seconds: float = Field(default=24 * 3600.0, ge=3600)
    """How long a blob stays that nothing refers to. More than any command takes from storing what
    it learned to queueing it."""


class StateConfig(Document):
    """The subset of coordinator.toml needed to open a net: its name and where it is stored."""

    model_config = ConfigDict(extra="ignore")

    net: Name
    state: ConfiguredPath
    """Folder of the database, keys, certificates and partial uploads."""
    database: str | None = None
    """SQLAlchemy URL; None is SQLite in the state folder."""
    artifacts: str | None = None
    """Folder or s3://bucket/prefix; None is a folder in the state folder."""

    @field_validator("artifacts")
    @classmethod
    def _is_a_place(cls, artifacts: str | None) -> str | None:
        return artifacts if artifacts is None or "://" in artifacts else str(expand(artifacts))

    @field_validator("database")
    @classmethod
    def _is_a_file_here(cls, database: str | None) -> str | None:
        scheme, slashes, file = (database or "").partition(":///")
        if scheme.partition("+")[0] != "sqlite" or not file:
            return database
        return f"{scheme}{slashes}{expand(file)}"


class CoordinatorConfig(StateConfig):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    server: ServerConfig = ServerConfig()
    identity: IdentityConfig = IdentityConfig()
    plan: PlanConfig
    admission: AdmissionConfig = AdmissionConfig()
    jobs: JobsConfig = JobsConfig()
    distillation: DistillationConfig = DistillationConfig()
    """For tasks that label images."""
    segmentation: SegmentationConfig = SegmentationConfig()
    """For tasks that label pixels; the keys of `distillation`, with other defaults."""
    samples: SamplesConfig = SamplesConfig()
    growth: GrowthConfig = GrowthConfig()
    acceptance: AcceptanceConfig = AcceptanceConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    witnesses: WitnessesConfig = WitnessesConfig()
    history: HistoryConfig = HistoryConfig()
    garbage: GarbageConfig = GarbageConfig()

    @model_validator(mode="after")
    def _rules_are_for_tasks_of_the_plan(self) -> Self:
        known = [task.name for task in self.plan.tasks]
        if unknown := sorted(self.acceptance.tasks.keys() - set(known)):
            raise ValueError(
                f"acceptance.tasks has a rule for '{unknown[0]}', which the plan has not; its "
                f"tasks are {', '.join(known)}"
            )
        return self

    def distillation_for(self, task: TaskSpec) -> DistillationConfig:
        """Return how adapters below that task's modules are learned."""
        return self.segmentation if task.kind == "binary-segmentation" else self.distillation

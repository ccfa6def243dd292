"""site.toml: the whole configuration of a site agent."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from rootstock.common.config import ConfiguredPath
from rootstock.common.distillation.settings import AugmentConfig
from rootstock.common.documents import Document, canonical_json
from rootstock.common.nets.spec import ArchitectureSpec, Name, Setting

DatasetKind = Literal["digits", "image-folder", "voc", "fashion-mnist", "mnist", "cifar10"]


class DataConfig(Document):
    """The lab's private images: its category, and "the rest" that the category is opposed to.

    Which lab's share of the rest an image is in, and whether it is reserved or serves validation or
    the holdout, follows from a stable hash of its name in the dataset. Labs that read one dataset
    with the same `parts`, `reserve` and list of classes therefore never have an image in common.
    """

    kind: DatasetKind
    path: ConfiguredPath | None = None
    """The dataset's root folder, as torchvision's class of that name takes it; not for `digits`."""
    class_name: str | None = None
    """What the dataset calls the lab's category; None: the same name."""
    rest: tuple[str, ...] | None = None
    """Classes that make up "the rest", the category itself left out; None: all others."""
    part: int = Field(default=1, ge=1)
    """Which share of the rest's images is this lab's: 1 to `parts`."""
    parts: int = Field(default=1, ge=1, le=10_000)
    reserve: float = Field(default=0.0, ge=0, lt=1)
    """Share of every class's images that serve other labs as "the rest". Above zero, the
    category keeps only its unreserved images and the rest takes only reserved ones, so that labs
    whose categories are each other's rest have no image in common."""
    validation_fraction: float = Field(default=0.3, gt=0, lt=0.9)
    """Share of the smaller side (category or rest) that is kept for validation; the larger side
    gives as many, so that plain error on it means something at threshold 0."""
    holdout_fraction: float = Field(default=0.15, gt=0, lt=0.9)
    """Share of the remaining images that the teacher does not see: refinement chooses on them, and
    outputs are calibrated on them."""
    max_images: int = Field(default=20_000, ge=2)
    """At most so many images of the category, and of the rest: they stay in memory as bytes."""
    image_set: Literal["train", "val", "trainval", "test"] | None = None
    """`voc`: train, val or trainval (default). Torchvision's others: train (default) or test."""
    crop: Literal["box", "image"] = "box"
    """`voc`: "box" cuts a square around the category's pixels, "image" the centre square."""
    context: float = Field(default=0.15, ge=0, le=2)
    """`voc`: margin around the box on each side, as a share of the box's longer side."""
    grey_range: tuple[float, float] | None = Field(
        default=None, exclude_if=lambda grey_range: grey_range is None
    )
    """`image-folder`, `voc`: grey values that become black and white, in pictures of more than 8
    bits of grey: [0, 4095] for 12 bits in 16. None: the format's range. 32-bit and floating-point
    grey has none, and is refused without."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, with a warning, instead of stopping."""
    download: bool = False
    """Let torchvision fetch or unpack the dataset; a lab's agent does not by itself."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.kind != "digits" and self.path is None:
            raise ValueError(f"kind '{self.kind}' needs 'path', the dataset's root folder")
        if self.part > self.parts:
            raise ValueError(f"part {self.part} is above parts {self.parts}; parts count from 1")
        if self.grey_range is not None and self.grey_range[0] >= self.grey_range[1]:
            raise ValueError(
                f"grey_range {list(self.grey_range)} is no range; give [black, white], the smaller "
                "number first"
            )
        if self.grey_range is not None and self.kind not in ("image-folder", "voc"):
            raise ValueError(f"kind '{self.kind}' has 8-bit images; remove grey_range")
        known = ("train", "val", "trainval") if self.kind == "voc" else ("train", "test")
        if self.image_set is not None and self.image_set not in known:
            raise ValueError(f"image_set of '{self.kind}' is one of {', '.join(known)}")
        return self


_NOT_SHAPING = {"path", "skip_unreadable", "download"}
"""Settings of the data that say where images are, and not which."""


class RecipeConfig(Document):
    """The settings of one recipe: the table of `training` that has the recipe's name."""

    not_described: ClassVar[set[str]] = set()
    """What the manifest does not list: paths of the lab's disk, and what shapes nothing."""

    def describe(self) -> dict[str, Setting]:
        """Return the settings that the manifest lists; the recipe adds what its files are."""
        return self.model_dump(mode="json", exclude=self.not_described)

    def require(self, training: TrainingConfig) -> None:
        """Raise ValueError for settings of `training` that the recipe cannot work with."""


def _trains_all(training: TrainingConfig) -> None:
    """Refuse frozen layers: the recipe has none."""
    if training.freezes:
        raise ValueError(
            f"recipe '{training.recipe}' trains all layers; take training.frozen and "
            "training.frozen_statistics out, or choose recipe 'supervised' or 'compatible'"
        )


class CompatibleConfig(RecipeConfig):
    """Recipe `compatible`: what frozen heads that the coordinator publishes add to training."""

    not_described: ClassVar[set[str]] = {"wait_seconds"}
    task_weight: float = Field(default=1.0, ge=0, le=1000)
    """Of the loss of each frozen task module (DCC); 0 leaves it out."""
    rotation_weight: float = Field(default=1.0, ge=0, le=1000)
    """Of the frozen rotation head's loss (RP), if one is published; 0 leaves it out."""
    batch_norm: Literal["running", "re-estimated"] = "running"
    """Statistics that BatchNorm layers ship: the running means of training, or means over the
    training images as they are, with the final weights."""
    wait_seconds: float = Field(default=5.0, gt=0, le=3600)
    """Pause between looks for heads while the coordinator publishes none."""

    def require(self, training: TrainingConfig) -> None:
        """Frozen statistics cannot be re-estimated."""
        if self.batch_norm == "re-estimated" and training.freezes:
            raise ValueError(
                "compatible.batch_norm = 're-estimated' sets all of BatchNorm's statistics anew; "
                "take it out, or training.frozen and training.frozen_statistics"
            )


class L2tSource(Document):
    """A trained net that recipe `l2t` reads, from a safetensors file on the lab's disk."""

    name: Name
    kind: Literal["net", "export", "torchvision"] = "net"
    """`net`: weights named by layer, as an older net of the lab's own, or a category module alone.
    `export`: what `rootstock net export` wrote, with its card beside it. `torchvision`: a state
    dict of one of torchvision's models."""
    path: ConfiguredPath
    architecture: ArchitectureSpec | None = None
    """Of `net`."""
    model: str | None = None
    """Of `torchvision`, as its `get_model` takes it: resnet34."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for kind, key in (("net", "architecture"), ("torchvision", "model")):
            if (getattr(self, key) is not None) != (self.kind == kind):
                raise ValueError(f"'{key}' goes with kind '{kind}' and with no other")
        return self


PairNames = tuple[Name, str, str]
"""Source, its layer, the target's layer: those of a task module as "task/layer"."""


class L2tConfig(RecipeConfig):
    """Recipe `l2t`: which trained nets are learned from, and how."""

    not_described: ClassVar[set[str]] = {"sources"}
    sources: tuple[L2tSource, ...] = Field(default=(), max_length=8)
    pairs: (
        Literal["all", "one-to-one", "single"]
        | Annotated[tuple[PairNames, ...], Field(min_length=1, max_length=256)]
    ) = "all"
    """Layers that are matched: every stage's end with every stage's end, stage with stage, the last
    alone; or a list."""
    beta: float = Field(default=0.5, gt=0, le=1000)
    """Of the matching loss."""
    inner_steps: int = Field(default=2, ge=1, le=10)
    """T, virtual steps on the matching loss alone."""
    meta_period: int = Field(default=1, ge=1, le=1000)
    """The meta-networks learn from every that many minibatches; most of the time goes into it."""
    meta_learning_rate: float = Field(default=1e-4, gt=0, le=1)
    """Of the meta-networks, which Adam trains; constant."""
    meta_weight_decay: float = Field(default=1e-4, ge=0, le=1)

    @model_validator(mode="after")
    def _once(self) -> Self:
        names = [source.name for source in self.sources]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two sources are named '{twice[0]}'")
        return self

    def describe(self) -> dict[str, Setting]:
        """Return how sources are used, and of a list of pairs their number."""
        pairs = self.pairs if isinstance(self.pairs, str) else len(self.pairs)
        return super().describe() | {"pairs": pairs}

    def require(self, training: TrainingConfig) -> None:
        """Look-ahead is by steps of SGD, and there must be something to learn from."""
        _trains_all(training)
        if training.optimiser != "sgd":
            raise ValueError(
                "recipe 'l2t' looks ahead by steps of SGD; set optimiser = \"sgd\" and a "
                "learning_rate for it, as 0.05"
            )
        if not self.sources:
            raise ValueError("recipe 'l2t' needs [[training.l2t.sources]], one or more")


class NettailorBackbone(Document):
    """The trained net whose blocks recipe `nettailor` keeps or replaces: a safetensors file."""

    kind: Literal["export", "net", "torchvision"] = "export"
    """`export`: what `rootstock net export` wrote, with its card beside it. `net`: weights named by
    the layers of the plan's architecture; a category module alone will do. `torchvision`: a state
    dict of its resnet18, where the plan's architecture is that."""
    path: ConfiguredPath


class NettailorConfig(RecipeConfig):
    """Recipe `nettailor`: a net's frozen blocks are kept or replaced by lean proxies.

    `training`'s own epochs and rates are those of the fine-tuned original, which the tailored net
    is compared with. What follows it is trained by SGD.
    """

    not_described: ClassVar[set[str]] = {"backbone"}
    backbone: NettailorBackbone | None = None
    """Of the plan's architecture; its task modules are the plan's."""
    student_epochs: int = Field(default=20, ge=1, le=100_000)
    """With every block and every proxy."""
    student_learning_rate: float = Field(default=0.1, gt=0, le=10)
    attention_rate: float = Field(default=5.0, gt=0, le=1000)
    """Multiplies the learning rate of attention α; long trainings need 1."""
    tuning_epochs: int = Field(default=8, ge=1, le=100_000)
    """Of each tuning of a pruned net; one above the tolerance gets up to four."""
    tuning_learning_rate: float = Field(default=0.05, gt=0, le=10)
    complexity: float = Field(default=0.3, ge=0, le=1000)
    """γ1, of the FLOPs that are to be expected."""
    mimicry: float = Field(default=0.1, ge=0, le=1000)
    """γ2, of the distance to the fine-tuned original's features and answers; with thousands of
    steps 10, as published."""
    tolerance: float = Field(default=0.5, ge=0, le=100)
    """Points that a tailored net's error may be above the fine-tuned original's, in every task."""
    held_share: float = Field(default=0.2, gt=0, le=0.5)
    """Share of the smaller side's training images that is set apart, and as many of the other
    side's: the search is judged on them and nothing learns from them."""

    def require(self, training: TrainingConfig) -> None:
        """There must be a backbone, and no other extractor."""
        _trains_all(training)
        if self.backbone is None:
            raise ValueError(
                "recipe 'nettailor' needs [training.nettailor.backbone], a file of trained weights "
                "as `rootstock net export` writes it"
            )
        if training.extractor is not None:
            raise ValueError(
                "recipe 'nettailor' makes its extractor of the plan's own; remove "
                "training.extractor"
            )


class TrainingConfig(Document):
    """How the teacher net is trained. Nothing is chosen on validation images."""

    recipe: Literal["supervised", "compatible", "l2t", "nettailor"] = "supervised"
    compatible: CompatibleConfig = CompatibleConfig()
    l2t: L2tConfig = L2tConfig()
    nettailor: NettailorConfig = NettailorConfig()
    extractor: ArchitectureSpec | None = Field(default=None, exclude_if=lambda spec: spec is None)
    """What the category module is, if not of the plan's architecture; task modules are the plan's
    in any case. Its map must be as large as the plan's, its width is projected to the plan's."""
    frozen: Name | None = Field(default=None, exclude_if=lambda layer: layer is None)
    """The net's layers up to this one, it included, stay as the plan's start has them: a lab with
    few images learns the rest, which may be the end of its task modules alone. Not written without:
    runs from before keep their names."""
    views: int = Field(default=0, ge=0, le=1000, exclude_if=lambda views: views == 0)
    """Views of every image, the image itself and augmented ones, for which what the frozen layers
    say is computed once and kept in memory: epochs then cost only what learns. 0: every epoch draws
    its own."""
    frozen_statistics: bool = Field(default=False, exclude_if=lambda frozen: not frozen)
    """Whether BatchNorm's running statistics stay as the plan's start has them, everywhere: a start
    that was trained on a million images knows them better than a few batches do."""
    epochs: int = Field(default=30, ge=1, le=100_000)
    batch_size: int = Field(default=32, ge=2, le=65_536)
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of `sgd`."""
    weight_decay: float = Field(default=1e-4, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    checkpoint_epochs: int = Field(default=2, ge=1)
    """Epochs between checkpoints; an interruption loses at most so many."""
    augment: AugmentConfig = AugmentConfig()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        self.chosen.require(self)
        if self.frozen is not None and self.extractor is not None:
            raise ValueError(
                f"training.frozen = '{self.frozen}' keeps what the plan's start has, and an "
                "extractor begins with weights that are drawn; take one of the two out"
            )
        if self.views and (self.frozen is None or self.recipe != "supervised"):
            raise ValueError(
                f"training.views = {self.views} keeps what frozen layers say, which recipe "
                "'supervised' with training.frozen has; set that, or take views out"
            )
        return self

    @property
    def freezes(self) -> bool:
        """Whether anything stays as the plan's start has it."""
        return self.frozen is not None or self.frozen_statistics

    @property
    def _tables(self) -> dict[str, RecipeConfig]:
        return {"compatible": self.compatible, "l2t": self.l2t, "nettailor": self.nettailor}

    @property
    def chosen(self) -> RecipeConfig:
        """The settings of the recipe; tables of other recipes are checked and not used.

        Those of `supervised` are all in `training` itself.
        """
        return self._tables.get(self.recipe, RecipeConfig())

    def describe(self) -> dict[str, Setting]:
        """Return the settings that the manifest lists; its architecture names the extractor."""
        flat: dict[str, Setting] = {}
        left_out = {"recipe", "checkpoint_epochs", "extractor", *self._tables}
        for key, value in self.model_dump(mode="json", exclude=left_out).items():
            if isinstance(value, dict):
                flat |= {f"{key}.{k}": v for k, v in value.items() if v is not None}
            else:
                flat[key] = value
        return flat | {f"{self.recipe}.{k}": v for k, v in self.chosen.describe().items()}

    def shaping(self) -> dict[str, Any]:
        """Return as JSON the settings that the trained weights follow from."""
        others = self._tables.keys() - {self.recipe}
        left_out: dict[str, Any] = dict.fromkeys(("checkpoint_epochs", *others), True)
        return self.model_dump(mode="json", exclude={"compatible": {"wait_seconds"}} | left_out)


class EvaluationConfig(Document):
    """What the lab reports of candidates besides their errors."""

    calibration: bool = True
    """Two numbers a candidate: scale and bias of its output, fitted on the holdout."""
    witness: bool = True
    """Whether the lab says, when it is asked, how often another lab's join says yes on its
    validation images of the rest: one percentage, and the number of these images."""


class RefinementConfig(Document):
    """How candidate adapters are refined on private samples; only the adapter travels."""

    enabled: bool = True
    steps: int = Field(default=400, ge=1, le=1_000_000)
    batch_size: int = Field(default=64, ge=2, le=65_536)
    learning_rate: float = Field(default=1e-2, gt=0, le=10)
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    """On the distance to the start."""
    check_steps: int = Field(default=20, ge=1)
    """Steps between looks at the holdout, where the best adapter so far is kept."""
    patience: int = Field(default=10, ge=1)
    """Looks without a better one after which refinement ends."""
    views: int = Field(default=2, ge=1, le=1000)
    """Augmented copies of each training image whose features are computed, besides the original."""
    max_feature_bytes: int = Field(default=1 << 30, ge=1 << 20)
    """Cap on memory for features f(I); above it fewer copies, then fewer images serve."""
    seed: int = Field(default=0, ge=0, lt=1 << 63)


MOMENT_IMAGES = 50
"""Over fewer images, means and covariances say much of each."""


class StatisticsConfig(Document):
    """Named statistics that travel with a teacher; each can be switched off."""

    feature_norm: bool = True
    """E‖f(I)‖_F over training images: the scale β of the rescale layer rests on it."""
    channel_means: bool = True
    """Mean of every channel of every conv output: biases of zero-sample adapters."""
    channel_variances: bool = True
    """Variance of every channel of every conv output."""
    feature_moments: bool | None = Field(default=None, exclude_if=lambda wanted: wanted is None)
    """Mean of f(I) at every place, and the covariances of its channels, rows and columns: what
    features are drawn from where a lab shares no images. None: where all of the above are on and
    there are `MOMENT_IMAGES` training images. Not written then: runs from before keep their
    names."""

    def with_moments(self, images: int) -> bool:
        """Say whether the moments of so many images' features travel."""
        if self.feature_moments is not None:
            return self.feature_moments
        others = self.feature_norm and self.channel_means and self.channel_variances
        return others and images >= MOMENT_IMAGES


class ConsentConfig(Document):
    """What a coordinator may draw from this lab in any 24 hours; a question above that waits.

    A merge of this lab's has two questions at most, with five numbers a candidate (seven of a
    segmentation). A merge of another lab's has two at most that ask this one as a witness, with two
    numbers each; `evaluation.witness = false` refuses those.
    """

    questions: int = Field(default=40, ge=1, le=10_000)
    """Those that are refused included; one that the coordinator has not signed counts nothing."""
    numbers: int = Field(default=1000, ge=0, le=1_000_000)
    """Errors, mean IoUs, counts, calibrations: all that a report holds. 0: none is answered."""
    bytes_down: int = Field(default=8 << 30, ge=0)
    """Bytes of the task modules, adapters and, for a witness, category modules of questions."""
    refinement_steps: int = Field(default=100_000, ge=0)
    max_blob_bytes: int = Field(default=4 << 30, ge=1 << 10)
    """The largest file that is fetched at all, whatever the coordinator's plan allows."""


class NetworkConfig(Document):
    """Patience with the coordinator. Time-outs count idle seconds, never the whole."""

    idle_seconds: float = Field(default=45.0, gt=0, le=86_400)
    """A stream without a byte (or heartbeat) for so long is given up and opened anew. Several of
    the coordinator's heartbeats (10 s) must fit."""
    call_seconds: float = Field(default=30.0, gt=0, le=86_400)
    """Deadline of calls that send one small message and get one back."""
    patience_seconds: float = Field(default=120.0, ge=0)
    """How long a coordinator may be out of reach when the agent starts, which then stops."""
    retry_cap_seconds: float = Field(default=20.0, gt=0, le=3600)
    """Longest pause between attempts (full jitter)."""


class SiteConfig(Document):
    """The whole file."""

    site: Name
    coordinator: str = "127.0.0.1:50051"
    state: ConfiguredPath
    """Folder of the key, checkpoints, the spool, the cursor, the log and status.json."""
    category: Name
    new_version: bool = False
    """Allows another teacher of this category beside one that this lab shipped before: the net
    calls it CATEGORY-v2. Without it such a teacher is refused: a merge never changes anything."""
    tasks: tuple[Name, ...] | None = Field(default=None, min_length=1, max_length=16)
    """Those of the plan's tasks that the teacher learns; None: all. A lab leaves out what it has no
    labels for."""
    share_samples: int = Field(default=0, ge=0, le=10_000)
    """Exactly so many training images travel with the teacher. 0: raw data never leaves."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """CPU threads for training; None leaves it to PyTorch."""
    device: Annotated[str, StringConstraints(pattern=r"^(cpu|cuda(:\d{1,2})?)$")] = "cpu"
    """Where teachers are trained and candidates evaluated: cpu, cuda or cuda:N."""
    data: DataConfig
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    refinement: RefinementConfig = RefinementConfig()
    statistics: StatisticsConfig = StatisticsConfig()
    consent: ConsentConfig = ConsentConfig()
    network: NetworkConfig = NetworkConfig()

    @model_validator(mode="after")
    def _refines_within_the_budget(self) -> Self:
        steps, budget = self.refinement.steps, self.consent.refinement_steps
        if self.refinement.enabled and steps > budget:
            raise ValueError(
                f"refinement.steps = {steps} is above consent.refinement_steps = {budget}, so no "
                "adapter could ever be refined; lower the one, raise the other, or set "
                "refinement.enabled = false"
            )
        return self

    def run_digest(self, plan_digest: str) -> str:
        """Return what names a teacher before it is trained: the plan and what shapes the teacher.

        Auxiliary heads are left out: a teacher that was shipped stays when they are replaced. So is
        where the images lie: a folder that was moved, or has changed, is told of another way.
        """
        parts = {
            "plan": plan_digest,
            "category": self.category,
            "data": self.data.model_dump(mode="json", exclude=_NOT_SHAPING),
            "training": self.training.shaping(),
            "statistics": self.statistics.model_dump(mode="json"),
            "share_samples": self.share_samples,
            "tasks": self.tasks,
            **({"new_version": True} if self.new_version else {}),
        }
        return hashlib.sha256(canonical_json(parts)).hexdigest()

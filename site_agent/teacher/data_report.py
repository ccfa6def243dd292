"""Says what an agent would read of a lab's images, and whether it would train on them."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from rootstock.common.documents import Document
from rootstock.common.errors import DataError, NotFoundError
from rootstock.common.files import read_capped, write_bytes
from rootstock.common.image_files.findings import Finding, FindingKind, printable
from rootstock.common.nets.architectures import image_form
from rootstock.common.nets.spec import ImageForm, Preprocessing
from rootstock.common.protocol import MAX_PLAN_BYTES, Plan
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.data.checks import grey_levels
from rootstock.site_agent.data.former_images import read_again
from rootstock.site_agent.data.images import LabData
from rootstock.site_agent.data.load import read
from rootstock.site_agent.data.record import read_record, record_path
from rootstock.site_agent.data.sides import Loaded
from rootstock.site_agent.lab import needs_masks, tasks_of
from rootstock.site_agent.teacher.train import require_trainable


class ClassCounts(Document):
    """Numbers of a class's images in each part."""

    name: str
    is_category: bool
    training: int = Field(ge=0)
    holdout: int = Field(ge=0)
    validation: int = Field(ge=0)


class DataReport(Document):
    """What `site run` would read of a lab's images, without a coordinator."""

    site: str
    category: str
    data: str
    """The folder, or the bundled dataset's name."""
    input_shape: tuple[int, int, int]
    """C, H, W."""
    plan_known: bool
    """Whether the input's size, tasks and limits are those of the plan that the agent fetched."""
    masks: bool
    """Whether masks were read as well."""
    classes: tuple[ClassCounts, ...]
    grey_levels: dict[str, int]
    """Different values of 256 that each part's images have."""
    findings: tuple[Finding, ...]
    refusal: str
    """Why the agent would not train; empty if it would."""
    state: str
    state_writable: bool


def save_plan(state: Path, plan: Plan) -> None:
    """Keep the plan, so that the images can be checked without the coordinator."""
    write_bytes(_plan_path(state), plan.canonical())


def known_plan(state: Path) -> Plan | None:
    """Return the plan that the agent fetched last, or None."""
    path = _plan_path(state)
    if not path.exists():
        return None
    return Plan.parse(read_capped(path, MAX_PLAN_BYTES, what="plan"), what=str(path))


def check_data(config: SiteConfig, size: int) -> DataReport:
    """Read a lab's images as its agent does; `size` is the input's height and width without a plan.

    ConfigurationError for settings that do not go with the plan.
    """
    plan = known_plan(config.state)
    form = (
        ImageForm((3, size, size), Preprocessing())
        if plan is None
        else image_form(plan.architecture)
    )
    masks = plan is not None and needs_masks(tasks_of(config, plan))
    loaded, data, refusal = Loaded(), None, ""
    batch_size = config.training.batch_size
    try:
        data = read(config.data, config.category, form, loaded, batch_size=batch_size, masks=masks)
        require_trainable(data, config, plan)
    except DataError as error:
        refusal = str(error)
    if plan is not None:
        loaded.findings += _changes(config, plan, form, masks=masks)
    levels = {} if data is None else {str(part): len(n) for part, n in grey_levels(data).items()}
    return DataReport(
        site=config.site,
        category=config.category,
        data=printable(config.data.kind if config.data.path is None else config.data.path),
        input_shape=form.shape,
        plan_known=plan is not None,
        masks=masks,
        classes=() if data is None else _counts(data, loaded),
        grey_levels=levels,
        findings=tuple(loaded.findings),
        refusal=refusal,
        state=printable(config.state),
        state_writable=_can_write(config.state),
    )


def _changes(config: SiteConfig, plan: Plan, form: ImageForm, *, masks: bool) -> Iterable[Finding]:
    """Yield what is other than it was when the lab's present teacher net was trained."""
    run = config.run_digest(plan.content_digest())
    record = read_record(record_path(config.state, run))
    if record is None:
        return
    former = Loaded()
    try:
        read_again(config.data, config.category, form, former, record, masks=masks)
    except (DataError, NotFoundError) as error:
        yield Finding(kind=FindingKind.CHANGED_SINCE, count=0, text=str(error))
    yield from (each for each in former.findings if each.kind is FindingKind.CHANGED_SINCE)


def _plan_path(state: Path) -> Path:
    return state / "plan" / "plan.json"


def _counts(data: LabData, loaded: Loaded) -> tuple[ClassCounts, ...]:
    counts = {
        part: Counter(loaded.classes[key] for key in images.keys)
        for part, images in data.parts().items()
    }
    names = sorted(set(loaded.classes.values()), key=lambda name: (name != loaded.category, name))
    return tuple(
        ClassCounts(
            name=printable(name),
            is_category=name == loaded.category,
            **{part: counted[name] for part, counted in counts.items()},
        )
        for name in names
    )


def _can_write(folder: Path) -> bool:
    """Say whether a folder can be written, or made where it is not there yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.absolute().parent
    try:
        with tempfile.TemporaryFile(dir=folder):  # nothing else knows of quotas and odd mounts
            return True
    except OSError:
        return False

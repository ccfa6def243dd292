"""A lab adapts its own net to a folder of images: real digits, and noisy ones as the new domain."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rootstock.common.compatible.adaptation import AdaptationSettings
from rootstock.common.compatible.rotation import TURNS
from rootstock.common.errors import (
    ConfigurationError,
    ConflictError,
    DataError,
    NotFoundError,
    SchemaError,
    StorageError,
)
from rootstock.common.image_files.decoding import UnreadableError
from rootstock.common.images import SIDES
from rootstock.common.nets.architectures import build_category_module, build_head, build_task_module
from rootstock.common.nets.spec import TaskSpec
from rootstock.common.protocol import Heads
from rootstock.common.weights import safetensors_io
from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.teacher.package import write_blob
from rootstock.site_agent.transfer.adapt import adapt_own
from rootstock.site_agent.transfer.adapt_card import (
    CATEGORY_MODULE,
    Adapted,
    AdaptedCard,
    require_free,
    write,
)
from rootstock.site_agent.transfer.snapshot import LabSnapshot, stored_teachers
from tests.support import digit_domains, digits_lab
from tests.support.digit_domains import save
from tests.support.lab_with_teacher import lab_in

pytestmark = pytest.mark.slow

SETTINGS = AdaptationSettings(steps=40, learning_rate=1e-3)
SHORT = AdaptationSettings(steps=1)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> LabSnapshot:
    return lab_in(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of noisy digits, some of them deeper in it."""
    folder = tmp_path_factory.mktemp("images")
    noisy = digit_domains.noisy(digit_domains.data().training.images_NCHW)
    save(noisy[:100], folder)
    save(noisy[100:], folder / "more" / "still")
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    test = digit_domains.target_test()
    for side, label in SIDES:
        save(test.images_NCHW[test.labels_N == label], folder / side)
    return folder


def adapted(
    lab: LabSnapshot,
    images: Path,
    labelled: Path | None = None,
    settings: AdaptationSettings = SHORT,
) -> Adapted:
    return adapt_own(lab, images, labelled, settings, lambda *_: None)


def published(lab: LabSnapshot, heads: Heads | None) -> LabSnapshot:
    return replace(lab, published=lab.published._replace(heads=heads))


def test_it_is_better_on_images_that_decided_nothing(
    lab: LabSnapshot, images: Path, labelled: Path
) -> None:
    found = adapted(lab, images, labelled, SETTINGS).facts
    errors = found.errors[digit_domains.TASK]
    assert errors.source > errors.re_estimated > errors.adapted + 5
    turns = found.rotations
    assert turns.source.loss > turns.re_estimated.loss > turns.adapted.loss
    assert turns.own.loss < turns.source.loss
    assert 0 < found.changed_answers[digit_domains.TASK] < 50
    assert found.batch_norm_layers > 0
    assert found.labelled == len(digit_domains.target_test())
    assert found.images == found.learned_from + found.judged_on


def test_labels_decide_nothing(
    lab: LabSnapshot, images: Path, labelled: Path, tmp_path: Path
) -> None:
    (tmp_path / "yes").symlink_to(labelled / "no")
    (tmp_path / "no").symlink_to(labelled / "yes")
    without, right, wrong = (adapted(lab, images, folder) for folder in (None, labelled, tmp_path))
    for other in (right, wrong):
        for name, value in without.net.category_module.state_dict().items():
            assert torch.equal(value, other.net.category_module.state_dict()[name])
    assert without.facts.errors == {}
    first, second = (each.facts.errors[digit_domains.TASK].adapted for each in (right, wrong))
    assert first + second == pytest.approx(100)


def test_what_is_written_is_read_back_bit_for_bit(
    lab: LabSnapshot, images: Path, tmp_path: Path
) -> None:
    found = adapted(lab, images)
    folder, card = write(found, tmp_path, None)
    assert folder == tmp_path / card.content_digest()
    text = (folder / f"{CATEGORY_MODULE}.card.json").read_bytes()
    assert AdaptedCard.parse(text, what="card") == card
    f = build_category_module(card.category_architecture)
    safetensors_io.load_module(f, folder / CATEGORY_MODULE, card.blob)
    g = build_task_module(card.category_architecture, digits_lab.TASK)
    blob = card.task_modules[digit_domains.TASK]
    safetensors_io.load_module(g, folder / f"task_module.{digit_domains.TASK}.safetensors", blob)
    before = digit_domains.trained().net.task_modules[digit_domains.TASK]
    # g keeps its weights and has other statistics.
    assert all(
        torch.equal(one, two) for one, two in zip(g.parameters(), before.parameters(), strict=True)
    )
    assert any(not torch.equal(g.state_dict()[k], v) for k, v in before.state_dict().items())
    assert card.made_of["teacher"] == lab.own.entry.digest
    assert card.made_of["category_module"] == lab.own.manifest.category_module.digest
    assert lab.published.heads is not None
    assert card.made_of["heads"] == lab.published.heads.content_digest()
    # Once more costs nothing and changes nothing.
    assert write(adapted(lab, images), tmp_path, None) == (folder, card)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_nothing_is_left_half_written(
    lab: LabSnapshot, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = adapted(lab, images)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(
            "rootstock.site_agent.transfer.adapt_card.write_bytes", interrupted
        )  # the card comes last
        with pytest.raises(KeyboardInterrupt):
            write(found, tmp_path / "state", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    folder, _ = write(found, tmp_path / "state", tmp_path / "out")
    assert folder == tmp_path / "out"
    with pytest.raises(ConflictError, match="out: is there already and not empty; name another"):
        require_free(folder)
    with pytest.raises(ConflictError, match="not empty"):
        write(found, tmp_path / "state", folder)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        write(found, tmp_path / "file", None)
    require_free(tmp_path / "new")


@pytest.mark.parametrize(
    ("heads", "said"),
    [
        (None, "publishes no heads and no rotation head, which adapting needs; ask its operator"),
        (
            Heads(number=3, origin="net version 2", task_modules={}),
            r"heads number 3 \(net version 2\) and no rotation head.* heads publish --images",
        ),
    ],
)
def test_no_rotation_head_is_published(
    lab: LabSnapshot, images: Path, heads: Heads | None, said: str
) -> None:
    with pytest.raises(NotFoundError, match=said):
        adapted(published(lab, heads), images)


def test_a_head_of_another_architecture(lab: LabSnapshot, images: Path, tmp_path: Path) -> None:
    wide = digit_domains.SPEC.model_copy(
        update={"settings": {**digit_domains.SPEC.settings, "width": 16}}
    )
    blob = write_blob(tmp_path, build_head(wide, TURNS).state_dict())
    heads = Heads(number=4, origin="test", task_modules={}, rotation=blob)
    other = replace(published(lab, heads), download=lambda entry, _: tmp_path / entry.digest)
    with pytest.raises(SchemaError, match=r"number 4, test.*does not fit architecture.*ask its op"):
        adapted(other, images)


def few(folder: Path, count: int) -> Path:
    save(digit_domains.data().training.images_NCHW[:count], folder)
    return folder


@pytest.mark.parametrize(("count", "said"), [(19, "to 19 images"), (45, "45 images leave 31")])
def test_too_few_images(lab: LabSnapshot, tmp_path: Path, count: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        adapted(lab, few(tmp_path, count))


def test_an_image_that_is_none(lab: LabSnapshot, tmp_path: Path) -> None:
    few(tmp_path, 3)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "note.jpg").write_text("not a picture")
    with pytest.raises(UnreadableError, match=r"deep/note.jpg: cannot be read.*remove it"):
        adapted(lab, tmp_path)


def breaks_a_side(folder: Path) -> None:
    (folder / "no").rename(folder / "none")


def empties_a_side(folder: Path) -> None:
    for path in (folder / "no").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (breaks_a_side, "--labelled .*: has no folder 'no'; give yes/"),
        (empties_a_side, "no: holds 0 images; give 1 to"),
    ],
)
def test_a_side_of_the_labelled_images_is_missing(
    lab: LabSnapshot, images: Path, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    few(tmp_path / "yes", 2)
    few(tmp_path / "no", 2)
    assert adapted(lab, images, tmp_path).facts.labelled == 4
    change(tmp_path)
    with pytest.raises(DataError, match=said):
        adapted(lab, images, tmp_path)


def test_labels_of_images_say_nothing_about_a_segmentation(lab: LabSnapshot, images: Path) -> None:
    plan = lab.published.plan
    tasks = (TaskSpec(name=digit_domains.TASK, kind="binary-segmentation"),)
    other = plan.model_copy(update={"tasks": tasks})
    voc = DataConfig(kind="voc", path=images)
    segmenting = replace(
        lab,
        config=lab.config.model_copy(update={"data": voc}),
        published=lab.published._replace(plan=other),
    )
    with pytest.raises(ConfigurationError, match=r"\(classification\) label pixels; leave it out"):
        adapted(segmenting, images, images)


def test_a_look_into_the_spool_changes_nothing(lab: LabSnapshot, tmp_path: Path) -> None:
    root = lab.config.state / "spool"
    writing = root / "staging" / "being-written"
    writing.mkdir()
    broken = root / "entries" / ("0" * 64)
    broken.mkdir()
    (broken / "manifest.json").write_text(json.dumps({"kind": "teacher"}))
    (found,) = stored_teachers(root)
    assert found.entry.digest == lab.own.entry.digest
    assert writing.is_dir()
    assert broken.is_dir()
    writing.rmdir()
    assert stored_teachers(tmp_path / "none") == []

"""Sources are ranked below a lab's own g: real digits, compatible nets and one that is not."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rootstock.common.compatible.adaptation import AdaptationSettings
from rootstock.common.errors import (
    ConfigurationError,
    DataError,
    IntegrityError,
    NotFoundError,
    SchemaError,
)
from rootstock.common.nets.architectures import build_category_module, initialise
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.weights.manifest import BlobEntry
from rootstock.site_agent.data.images import LabData
from rootstock.site_agent.recipes.sources import SourceNet, from_file
from rootstock.site_agent.teacher.package import write_blob
from rootstock.site_agent.transfer.adapt import adapt_own
from rootstock.site_agent.transfer.adapt_card import CATEGORY_MODULE, write
from rootstock.site_agent.transfer.rank_sources import Ranking, candidates, judged, rank, task_named
from rootstock.site_agent.transfer.snapshot import LabSnapshot, StoredTeacher
from tests.support import digit_domains, digits_lab
from tests.support.digit_domains import save
from tests.support.lab_with_teacher import lab_in

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> LabSnapshot:
    return lab_in(tmp_path_factory.mktemp("transferring"))


@pytest.fixture(scope="module")
def adapted(lab: LabSnapshot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a category module that understands the lab's g: an adapted one."""
    folder = tmp_path_factory.mktemp("noisy")
    save(digit_domains.noisy(digit_domains.data().training.images_NCHW[::3]), folder / "images")
    settings = AdaptationSettings(steps=5)
    found = adapt_own(lab, folder / "images", None, settings, lambda *_: None)
    return write(found, folder, folder / "out")[0] / CATEGORY_MODULE


def stranger(spec: ArchitectureSpec = digit_domains.SPEC) -> SourceNet:
    f = initialise(build_category_module(spec), 5).eval().requires_grad_(False)
    return SourceNet("stranger", spec, f)


def ranked(lab: LabSnapshot, sources: list[SourceNet], steps: int) -> Ranking:
    return rank(lab, sources, digits_lab.TASK, steps, lambda *_: None)


def test_what_is_compatible_comes_first_and_fine_tuning_helps_the_rest(
    lab: LabSnapshot, adapted: Path
) -> None:
    given = [stranger(), from_file(adapted, digits_lab.CPU)]
    seen = []
    found = rank(lab, given, digits_lab.TASK, 30, lambda *step: seen.append(step))
    first, last = found.sources
    assert first.source == "two (category_module)"
    assert (first.rank_at_once, first.rank_fine_tuned) == (1, 1)
    assert (last.rank_at_once, last.rank_fine_tuned) == (2, 2)
    assert first.at_once.holdout_error < 25 < last.at_once.holdout_error
    assert last.fine_tuned is not None
    assert last.fine_tuned.holdout_loss < last.at_once.holdout_loss
    own, initial = found.references
    assert own.at_once.validation_error <= first.at_once.validation_error + 5
    assert initial.at_once.holdout_error > own.at_once.holdout_error + 5
    assert own.rank_at_once is None
    assert [step for step, _, _ in seen] == list(range(1, 121))
    assert {steps for _, steps, _ in seen} == {120}
    data = digit_domains.data()
    counts = (found.training, found.holdout, found.validation)
    assert counts == (len(data.training), len(data.holdout), len(data.validation))
    # The nets that were given are as they were, and the same again gives the same numbers.
    assert ranked(lab, given, 0).sources[1].at_once == last.at_once


def test_validation_images_decide_nothing(lab: LabSnapshot, adapted: Path) -> None:
    data = digit_domains.data()
    net = digit_domains.trained().net
    g = net.task_modules[digit_domains.TASK]
    upside_down = replace(data.validation, labels_N=1 - data.validation.labels_N)
    other = LabData(data.training, data.holdout, upside_down, data.mirror)
    for f in (net.category_module, from_file(adapted, digits_lab.CPU).category_module):
        one, two = judged(f, g, data), judged(f, g, other)
        assert (one.holdout_error, one.holdout_loss) == (two.holdout_error, two.holdout_loss)
        assert one.validation_error + two.validation_error == pytest.approx(100)


def test_at_once_only(lab: LabSnapshot, adapted: Path) -> None:
    found = ranked(lab, [stranger(), from_file(adapted, digits_lab.CPU)], 0)
    assert [row.rank_at_once for row in found.sources] == [1, 2]
    assert all((row.fine_tuned, row.rank_fine_tuned) == (None, None) for row in found.sources)


def test_older_teachers_are_candidates_if_they_fit(lab: LabSnapshot) -> None:
    other = lab.own.manifest.model_copy(
        update={"architecture": digits_lab.SPEC, "category_module": small(lab)}
    )
    older = StoredTeacher(lab.own.entry, lab.own.manifest)
    misfit = StoredTeacher(lab.own.entry, other)
    said: list[str] = []
    found = candidates(replace(lab, others=(older, misfit), warn=said.append), [])
    assert [source.name for source in found] == [f"two (spool, {lab.own.entry.digest[:8]})"]
    (warning,) = said
    assert warning.startswith("left out: source two (spool")
    assert "f gives 8×16×16, g_S takes 16×16×16" in warning


def small(lab: LabSnapshot) -> BlobEntry:
    """Put the weights of another architecture beside the lab's own."""
    module = build_category_module(digits_lab.SPEC)
    return write_blob(lab.own.entry.folder / "blobs", module.state_dict())


def test_nothing_to_rank(lab: LabSnapshot) -> None:
    with pytest.raises(NotFoundError, match=r"no older teacher net, and no file.*give --from NAME"):
        candidates(lab, [])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 16}, r"stranger: does not fit below the lab's g.*32×16×16.*leave it out"),
        ({"input_size": 64}, "stranger: takes images of 3×64×64, the lab's are 3×32×32; leave it"),
    ],
)
def test_a_source_that_does_not_fit(lab: LabSnapshot, changes: dict[str, int], said: str) -> None:
    spec = digit_domains.SPEC.model_copy(
        update={"settings": {**digit_domains.SPEC.settings, **changes}}
    )
    with pytest.raises(SchemaError, match=said):
        candidates(lab, [stranger(spec)])


def test_a_task_that_the_lab_does_not_teach(lab: LabSnapshot) -> None:
    assert task_named(lab, None) == digits_lab.TASK
    with pytest.raises(ConfigurationError, match=r"--task depth: .* it has classification"):
        task_named(lab, "depth")


def test_too_few_images_for_statistics() -> None:
    data, net = digit_domains.data(), digit_domains.trained().net
    few = LabData(data.training.subset([*range(31)]), data.holdout, data.validation, data.mirror)
    with pytest.raises(DataError, match="statistics from 31 images would be noise; give 32"):
        judged(net.category_module, net.task_modules[digit_domains.TASK], few)


def test_files_that_are_no_source(adapted: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(adapted.read_bytes())
    with pytest.raises(NotFoundError, match="an exported net is two files, copy both"):
        from_file(alone, digits_lab.CPU)
    card = tmp_path / "alone.safetensors.card.json"
    text = adapted.with_name(f"{adapted.name}.card.json").read_text()
    card.write_text(text.replace('"weights": "safetensors"', '"weights": "onnx"'))
    with pytest.raises(SchemaError, match=r"of format onnx.*export it as NAME.safetensors"):
        from_file(alone, digits_lab.CPU)
    card.write_text("{}")
    with pytest.raises(
        SchemaError, match=r"no card of an exported or adapted net.*export it again"
    ):
        from_file(alone, digits_lab.CPU)
    card.write_text(text)
    damaged = bytearray(alone.read_bytes())
    damaged[-1] ^= 1
    alone.write_bytes(damaged)
    with pytest.raises(IntegrityError, match="SHA-256"):
        from_file(alone, digits_lab.CPU)
    alone.write_bytes(adapted.read_bytes())
    read = from_file(alone, digits_lab.CPU).category_module
    assert digest(read) == digest(from_file(adapted, digits_lab.CPU).category_module)


def digest(module: torch.nn.Module) -> str:
    sha = hashlib.sha256()
    for value in module.state_dict().values():
        sha.update(value.numpy().tobytes())
    return sha.hexdigest()

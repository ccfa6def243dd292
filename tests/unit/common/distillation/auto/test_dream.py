import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from rootstock.common.distillation.auto.dream import Dream, DreamRecord, DreamSource, moments
from rootstock.common.distillation.settings import DreamSettings
from rootstock.common.errors import TransplantError
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec
from tests.support.dreams import (
    IMAGE,
    QUICK,
    category_module,
    centred_teacher,
    convolutions,
    digits,
    shipped,
    source,
)
from tests.support.solver_nets import task_module


def dreamed(settings: DreamSettings = QUICK) -> tuple[Dream, list[DreamRecord]]:
    dream, records = Dream(source(), settings), []
    while not dream.done:
        records.append(dream.step())
    return dream, records


def test_moments_are_those_of_the_outputs() -> None:
    f = category_module()
    images = digits(5)
    with torch.no_grad(), moments({"conv1_1": f[0]}) as found:
        f(images)
    with torch.no_grad():
        output_CP = f[0](images).transpose(0, 1).flatten(1)
    torch.testing.assert_close(found["conv1_1"][0], output_CP.mean(1))
    torch.testing.assert_close(found["conv1_1"][1], output_CP.var(1, correction=0))
    assert not f[0]._forward_hooks


def test_a_dream_takes_on_what_was_shipped_and_convinces_the_teacher() -> None:
    before = Dream(source(), QUICK).measure()
    dream, records = dreamed()
    after = dream.require_converged()
    assert [record.step for record in records] == list(range(1, 41))
    assert after.statistics_loss < 0.3 * before.statistics_loss
    assert after.class_loss < 0.1
    # Neighbours in noise differ by twice its variance.
    assert after.smoothness < 1.5 * float(dream.images().var())
    settings = QUICK
    expected = (
        settings.confidence * after.class_loss
        + settings.statistics * after.statistics_loss
        + settings.smoothness * after.smoothness
    )
    assert after.loss == pytest.approx(expected, rel=1e-5)
    given = source()
    with torch.no_grad():
        y_N = given.teacher_task(given.category_module(dream.images())).flatten()
    assert (y_N > 0).tolist() == [True] * 6 + [False] * 6


def test_the_statistics_of_the_very_images_are_at_distance_zero() -> None:
    dream, _ = dreamed(QUICK.model_copy(update={"steps": 3}))
    f, g = category_module(), centred_teacher()
    with torch.no_grad(), moments(convolutions(f, g)) as found:
        g(f(dream.images()))
    own: dict[str, Tensor | None] = {
        f"{kind}/{name}": value
        for name, pair in found.items()
        for kind, value in zip(("mean", "variance"), pair, strict=True)
    }
    again = Dream(source(own), QUICK.model_copy(update={"steps": 3})).restore(dream.state())
    assert again.measure().statistics_loss == pytest.approx(0, abs=1e-8)
    assert dream.measure().statistics_loss > 0.01


def test_a_dream_cut_anywhere_goes_on_bit_for_bit() -> None:
    settings = QUICK.model_copy(update={"steps": 8})
    whole, records = dreamed(settings)
    cut = Dream(source(), settings)
    for _ in range(3):
        cut.step()
    resumed = Dream(source(), settings).restore(load(save(cut.state())))
    rest = []
    while not resumed.done:
        rest.append(resumed.step())
    assert rest == records[3:]
    assert torch.equal(whole.images(), resumed.images())
    with pytest.raises(TransplantError, match="all 8 steps"):
        whole.step()
    other = Dream(source(), settings.model_copy(update={"images": 4}))
    with pytest.raises(TransplantError, match="another dream"):
        other.restore(whole.state())
    shorter = Dream(source(), settings.model_copy(update={"steps": 2}))
    with pytest.raises(TransplantError, match="step 8 of a run longer than 2 steps"):
        shorter.restore(whole.state())


def test_a_seed_means_one_dream_and_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    settings = QUICK.model_copy(update={"steps": 2})
    first, second, third = (
        dreamed(settings.model_copy(update={"seed": seed}))[0].images() for seed in (3, 3, 4)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_class_loss": 1e-9}, "its class loss is .* the limit is 1e-09"),
        ({"max_statistics_loss": 1e-9}, "its statistics loss is .* after 2 steps"),
    ],
)
def test_a_dream_that_did_not_converge_is_not_used(limits: dict[str, float], message: str) -> None:
    loose = {"steps": 2, "max_class_loss": 1e9, "max_statistics_loss": 1e9}
    dream, _ = dreamed(QUICK.model_copy(update={**loose, **limits}))
    with pytest.raises(TransplantError, match=message):
        dream.require_converged()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"variance/{name}": None for name in convolutions(category_module(), task_module())},
         "nothing to dream from"),
        ({"mean/conv9_9": torch.ones(4), "variance/conv9_9": torch.ones(4)}, "'conv9_9', which"),
        ({"variance/conv1_1": torch.zeros(4)}, "'conv1_1' have variances that sum to 0"),
        ({"mean/conv1_1": torch.full((4,), float("nan"))}, "'conv1_1'.*not finite"),
        ({"mean/conv1_1": torch.ones(5), "variance/conv1_1": torch.ones(5)},
         "'conv1_1' have shape .* 4 channels"),
    ],
)  # fmt: skip
def test_statistics_that_cannot_be_dreamed_from_are_refused(
    changes: dict[str, Tensor | None], message: str
) -> None:
    with pytest.raises(TransplantError, match=message):
        Dream(source(changes), QUICK)


def test_layers_inside_residual_blocks_are_found() -> None:
    spec = ArchitectureSpec(
        name="small-resnet", split="block1_1", settings={"width": 4, "blocks": 1}
    )
    f, g = initial_modules(spec, [TaskSpec(name="classification")], seed=0)
    given = DreamSource(f, g["classification"], IMAGE, shipped(f, g["classification"]))
    assert {"conv1", "block1_1.conv1", "block3_1.conv2"} <= set(given.layers())
    dream = Dream(given, DreamSettings(images=4, steps=1))
    running = f.get_buffer("bn1.running_mean")
    before = running.clone()
    dream.step()
    assert torch.equal(before, running)  # BatchNorm stays as in evaluation

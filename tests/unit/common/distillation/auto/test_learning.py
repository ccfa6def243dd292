import copy
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from rootstock.common.distillation.auto.dream import Dream
from rootstock.common.distillation.auto.imitation import Answers
from rootstock.common.distillation.auto.learning import AutoLearning
from rootstock.common.distillation.methods import method_named
from rootstock.common.distillation.problem import Samples, TransplantProblem
from rootstock.common.distillation.settings import (
    BackDistillationSettings,
    MethodSettings,
    TeachingSettings,
)
from rootstock.common.distillation.solvers.learning import Learning
from rootstock.common.distillation.transplant import Transplant
from rootstock.common.errors import TransplantError
from rootstock.common.images import normalise
from rootstock.common.nets.architectures import feature_shape, input_shape
from rootstock.common.nets.feature_moments import FeatureMoments, MomentSums
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.nets.training import in_batches
from rootstock.site_agent.config import StatisticsConfig
from rootstock.site_agent.scoring import error_percent
from rootstock.site_agent.teacher.statistics import statistics
from tests.support import digits_lab
from tests.support.dreams import IMAGE, QUICK, category_module, centred_teacher, digits, source
from tests.support.solver_nets import SHAPE, adapter_spec, features, task_module

SMALL = TeachingSettings(
    dream_views=24, sample_views=24, synthetic=16, synthetic_views=16, steps=6, batch_size=16
)
LOOSE = {"images": 4, "steps": 4, "max_class_loss": 1e9, "max_statistics_loss": 1e9}
LEARNING = BackDistillationSettings(draws=16, batch_size=5)


def settings(**teaching: float) -> MethodSettings:
    return MethodSettings(
        dream=QUICK.model_copy(update=LOOSE),
        learning=LEARNING,
        teaching=SMALL.model_copy(update=teaching),
    )


def given(
    *, samples: bool = False, dreams: bool = True, draws: bool = False, same: bool = False
) -> Transplant:
    teacher = centred_teacher()
    student = copy.deepcopy(teacher) if same else task_module(2)
    f = category_module()
    few = images_NCHW = None
    if samples:
        images_NCHW = digits(4)
        few = Samples(in_batches(f, images_NCHW), torch.tensor([0.0, 1, 0, 1]))
    return Transplant(
        TransplantProblem(teacher, student, SHAPE),
        adapter_spec(2),
        few,
        source=source() if dreams else None,
        moments=moments() if draws else None,
        category_module=f,
        image_shape=IMAGE,
        images_NCHW=images_NCHW,
    )


def moments() -> FeatureMoments:
    sums = MomentSums()
    sums.add(in_batches(category_module(), digits()))
    return FeatureMoments.shipped(sums.moments(), SHAPE, signed=False)


@pytest.mark.parametrize("method", ["dream", "auto"])
def test_the_student_comes_to_say_what_the_teacher_says(method: str) -> None:
    """Of dreams, and of samples whose labels agree with the teacher."""
    transplant = given(dreams=method == "dream")
    if method == "auto":
        x_NCHW = in_batches(category_module(), digits(32))
        labels_N = (transplant.problem.teacher_task(x_NCHW).flatten() > 0).float()
        transplant = replace(transplant, samples=Samples(x_NCHW, labels_N), images_NCHW=digits(32))
    chosen = settings(steps=150, synthetic=0, sample_views=64).model_copy(
        update={"dream": QUICK, "learning": LEARNING.model_copy(update={"learning_rate": 1e-2})}
    )
    run = method_named(method).begin(transplant, chosen)
    start = copy.deepcopy(run.adapter)
    while not run.done:
        run.step()
    images_NCHW = run.state()["dream/images"] if method == "dream" else digits(32)
    shown_NCHW = in_batches(category_module(), images_NCHW)
    answers = Answers.to(transplant.problem, shown_NCHW)
    student_task = transplant.problem.student_task
    assert answers.distance(start, student_task) > 0.8
    assert answers.distance(run.adapter, student_task) < 0.5
    y_S_N = student_task(run.adapter(shown_NCHW)).flatten()
    assert float(((y_S_N > 0) == (answers.y_T_NO.flatten() > 0)).float().mean()) > 0.9


def test_drawn_features_carry_further_than_synthetic_images(tmp_path: Path) -> None:
    """No sample, no dream: y_S is held to y_T on what the moments say, and real images follow."""
    founder, teacher = (digits_lab.teacher(d, tmp_path / str(d)) for d in (0, 3))
    f, shape = teacher.category_module, feature_shape(digits_lab.SPEC)
    g_T, g_S = (each.task_modules["classification"] for each in (teacher, founder))
    data = digits_lab.data(3)
    named = statistics(teacher, data.training, StatisticsConfig())
    without = Transplant(
        TransplantProblem(g_T, g_S, shape),
        AdapterSpec(in_channels=shape[0], out_channels=shape[0], kernel=3),
        category_module=f,
        image_shape=input_shape(digits_lab.SPEC),
    )
    drawing = replace(without, moments=FeatureMoments.shipped(named, shape, signed=False))
    x_NCHW = in_batches(f, normalise(data.validation.images_NCHW))
    real, labels_N = Answers.to(without.problem, x_NCHW), data.validation.labels_N
    errors, distances = [], []
    for transplant in (drawing, without):
        run = method_named("auto").begin(transplant, MethodSettings(ridge=1.0))
        assert run.steps == TeachingSettings().steps  # and none of a dream
        while not run.done:
            run.step()
        y_N = in_batches(nn.Sequential(run.adapter, g_S), x_NCHW).flatten()
        errors.append(error_percent(y_N, labels_N))
        distances.append(real.distance(run.adapter, g_S))
    assert errors[0] < 35 < 40 < errors[1]
    assert distances[0] < 0.9 < 1.0 < distances[1]


@pytest.mark.parametrize("cut", [1, 5])
def test_drawn_features_go_on_bit_for_bit(cut: int) -> None:
    """With no dream before them, either."""

    def begun() -> Learning:
        chosen = settings(drawn=30)
        dream = chosen.dream.model_copy(update={"beside_draws": 0})
        return method_named("auto").begin(
            given(draws=True, samples=True), chosen.model_copy(update={"dream": dream})
        )

    whole, first, second = begun(), begun(), begun()
    assert whole.report["drawn"] == 30
    records = [whole.step() for _ in range(whole.steps)]
    for _ in range(cut):
        first.step()
    second.restore(load(save(first.state())))
    assert records[cut:] == [second.step() for _ in range(whole.steps - cut)]
    for (name, ours), theirs in zip(
        whole.adapter.state_dict().items(), second.adapter.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize(
    ("method", "drawn", "beside", "dreams"),
    [
        ("auto", 30, 32 * 32, True),
        ("auto", 30, 32 * 32 - 1, False),
        ("auto", 0, 0, True),
        ("dream", 30, 0, True),
    ],
)
def test_auto_leaves_out_dreams_of_large_images_where_it_draws(
    method: str, drawn: int, beside: int, *, dreams: bool
) -> None:
    chosen = settings(drawn=drawn)
    dream = chosen.dream.model_copy(update={"beside_draws": beside})
    run = method_named(method).begin(given(draws=True), chosen.model_copy(update={"dream": dream}))
    assert any(name.startswith("dream/") for name in run.state()) == dreams


@pytest.mark.parametrize("method", ["dream", "auto"])
@pytest.mark.parametrize("samples", [False, True])
@pytest.mark.parametrize("cut", [2, 7])
def test_a_method_goes_on_bit_for_bit_in_either_phase(method: str, samples: bool, cut: int) -> None:
    whole = method_named(method).begin(given(samples=samples), settings())
    records = []
    while not whole.done:
        records.append(whole.step())
    assert [record.step for record in records] == list(range(1, 11))
    first = method_named(method).begin(given(samples=samples), settings())
    for _ in range(cut):
        first.step()
    second = method_named(method).begin(given(samples=samples), settings())
    second.restore(load(save(first.state())))
    rest = []
    while not second.done:
        rest.append(second.step())
    assert records[cut:] == rest
    for (name, ours), theirs in zip(
        whole.adapter.state_dict().items(), second.adapter.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("method", ["dream", "auto"])
def test_samples_take_part_where_there_are_some(method: str) -> None:
    weights = []
    for samples in (True, False):
        run = method_named(method).begin(given(samples=samples), settings())
        while not run.done:
            run.step()
        weights.append(run.adapter.convolutions()[0].weight.detach())
    assert not torch.equal(*weights)


def test_auto_learns_nothing_where_the_join_is_good_as_it_is() -> None:
    run = method_named("auto").begin(given(same=True, dreams=False, samples=True), settings())
    assert run.done
    x_NCHW = features(4)
    torch.testing.assert_close(run.adapter(x_NCHW), x_NCHW)  # a Dirac kernel
    with pytest.raises(TransplantError, match="good enough"):
        run.step()
    again = method_named("auto").begin(given(same=True, dreams=False, samples=True), settings())
    assert again.restore(load(save(run.state()))).done


def test_auto_takes_the_closed_form_where_that_is_good_enough() -> None:
    """Shuffled channels: the join as it is says nothing, the closed form undoes the shuffle."""
    plain = given(same=True, dreams=False, samples=True)
    shuffled = Transplant(
        plain.problem,
        adapter_spec(2),
        plain.samples,
        permutation_C=torch.randperm(SHAPE[0], generator=torch.Generator().manual_seed(3)),
        category_module=plain.category_module,
        image_shape=IMAGE,
        images_NCHW=plain.images_NCHW,
    )
    chosen = settings().model_copy(
        update={"ridge": 1e-9, "learning": LEARNING.model_copy(update={"draws": 256})}
    )
    run = method_named("auto").begin(shuffled, chosen)
    assert run.done
    x_NCHW = features(4)
    torch.testing.assert_close(run.adapter(x_NCHW), x_NCHW, rtol=1e-3, atol=1e-3)


def test_auto_does_without_a_dream_that_fails_and_dream_does_not() -> None:
    failing = settings().model_copy(
        update={"dream": QUICK.model_copy(update={"steps": 1, "max_class_loss": 1e-9})}
    )
    dream = method_named("dream").begin(given(), failing)
    with pytest.raises(TransplantError, match="did not converge"):
        dream.step()
    auto = method_named("auto").begin(given(), failing)
    while not auto.done:
        auto.step()


def test_auto_with_nothing_to_show_the_teacher_is_the_closed_form() -> None:
    problem = TransplantProblem(task_module(1), task_module(2), SHAPE)
    bare = Transplant(problem, adapter_spec(2))
    weights = [
        method_named(name).begin(bare, MethodSettings(learning=LEARNING)).adapter.state_dict()
        for name in ("auto", "closed-form")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_dream_needs_a_source() -> None:
    problem = TransplantProblem(task_module(1), task_module(2), SHAPE)
    with pytest.raises(TransplantError, match="switch channel means and variances on"):
        method_named("dream").begin(Transplant(problem, adapter_spec()), MethodSettings())


def test_a_state_of_other_settings_is_refused() -> None:
    first = method_named("auto").begin(given(), settings())
    for _ in range(6):
        first.step()
    state = first.state()
    with pytest.raises(TransplantError):
        method_named("auto").begin(given(dreams=False), settings()).restore(
            {key: value for key, value in state.items() if key.startswith("dream/")}
        )


@pytest.mark.parametrize("images", [0, 3])
def test_images_come_with_their_samples(images: int) -> None:
    with pytest.raises(TransplantError, match="images"):
        Transplant(
            TransplantProblem(task_module(1), task_module(2), SHAPE),
            adapter_spec(2),
            Samples(features(4), torch.tensor([0.0, 1, 0, 1])) if images else None,
            category_module=category_module(),
            images_NCHW=digits(images or 4),
        )


def test_a_teacher_that_always_says_the_same_cannot_be_imitated() -> None:
    teacher = task_module(1)
    last = list(teacher)[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    problem = TransplantProblem(teacher, task_module(2), SHAPE)
    with pytest.raises(TransplantError, match="always says the same"):
        Answers.to(problem, features(8))


def test_what_a_state_decided_holds_where_this_run_would_decide_otherwise() -> None:
    def fresh(good_enough: float) -> AutoLearning:
        chosen = settings(good_enough=good_enough)
        return AutoLearning(given(same=True, dreams=False, samples=True), chosen, thrifty=True)

    learning, satisfied = fresh(0.0), fresh(0.05)
    # A distance of exactly 0 is good enough for both, so the two are told apart by hand.
    assert satisfied.done
    state = satisfied.state()
    own = {f"adapter/{key}" for key in satisfied.adapter.state_dict()}
    assert state.keys() == own | {"step", "generator"}
    assert learning.restore(state).done
    other = given(dreams=False, samples=True)
    running = AutoLearning(other, settings(), thrifty=True)
    running.step()
    resumed = AutoLearning(other, settings(good_enough=1.0), thrifty=True).restore(running.state())
    assert not resumed.done
    assert resumed.step().step == 2


def test_auto_keeps_the_start_where_learning_leads_away_from_the_teacher() -> None:
    wild = LEARNING.model_copy(update={"learning_rate": 10.0})
    chosen = settings().model_copy(update={"learning": wild})
    run = method_named("auto").begin(given(dreams=False, samples=True), chosen)
    start = {key: value.clone() for key, value in run.adapter.state_dict().items()}
    while not run.done:
        run.step()
    assert all(torch.equal(value, start[key]) for key, value in run.adapter.state_dict().items())


def test_no_view_may_be_asked_for() -> None:
    none = settings(dream_views=0, sample_views=0, synthetic_views=0)
    run = method_named("auto").begin(given(samples=True), none)
    while not run.done:
        run.step()


def test_views_are_fewer_where_features_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    original = Answers.to

    def noting(problem: TransplantProblem, features_NCHW: Tensor) -> Answers:
        shown.append(len(features_NCHW))
        return original(problem, features_NCHW)

    monkeypatch.setattr(Answers, "to", noting)
    many = {"sample_views": 400, "synthetic": 100, "synthetic_views": 400}
    each = 4 * (torch.Size(SHAPE).numel() + 1)  # and the answer
    for cap, most in ((1 << 30, 4 + 4 + 400 + 500), (1 << 20, 4 + 2 * ((1 << 20) // each // 4))):
        chosen = settings(**many, max_feature_bytes=cap)
        method_named("auto").begin(given(samples=True, dreams=False), chosen)
        assert shown[-1] == most


def test_a_dream_of_large_images_has_fewer() -> None:
    small = QUICK.model_copy(update={"images": 64, "max_pixels": 1 << 13})
    assert len(Dream(source(), small).images()) == 8


def test_without_a_rule_for_a_layer_it_begins_without_the_closed_form_and_says_so() -> None:
    transplant = given(samples=True)
    for g in (transplant.problem.teacher_task, transplant.problem.student_task):
        setattr(g, next(n for n, x in g.named_children() if isinstance(x, nn.ReLU)), nn.Tanh())
    learning = method_named("auto").begin(transplant, settings())
    assert re.search(
        r"^the closed-form start: layer '\w+' is a Tanh, which has no", learning.without
    )
    identity = transplant.problem.identity_start(transplant.spec).state_dict()
    for name, tensor in learning.adapter.state_dict().items():
        assert torch.equal(tensor, identity[name])
    assert method_named("auto").begin(given(samples=True), settings()).without == ""
    with pytest.raises(TransplantError, match="is a Tanh, which has no adjoint rule"):
        method_named("closed-form").begin(transplant, settings())

import pytest
import torch
from safetensors.torch import load, save
from torch.nn import functional as F  # noqa: N812

from rootstock.common.distillation.methods import method_named
from rootstock.common.distillation.problem import Samples, TransplantProblem
from rootstock.common.distillation.settings import (
    BackDistillationSettings,
    Draws,
    MethodName,
    MethodSettings,
    Start,
)
from rootstock.common.distillation.solvers.closed_form import closed_form
from rootstock.common.distillation.solvers.penalties import JacobianPenalty, real_gradient
from rootstock.common.distillation.transplant import Transplant, soft_labels, starting_adapter
from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from tests.support.solver_nets import SHAPE, adapter_spec, features, problem, shuffled, task_module

CHANNELS = SHAPE[0]
QUICK = MethodSettings(
    learning=BackDistillationSettings(steps=8, batch_size=4, draws=8, draws_per_step=3)
)
ITERATIVE = ["back-distill", "direct-learn", "distill", "jacobian"]


def transplant(convs: int = 2, samples: bool = True) -> Transplant:
    x = features(10, seed=3)
    with torch.no_grad():
        y = problem(1, 2).teacher_task(x).flatten()
    permutation = torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(4))
    return Transplant(
        problem(1, 2, beta=0.5),
        adapter_spec(convs),
        Samples(x, (y > y.median()).float()) if samples else None,
        permutation,
    )


def learned(name: str, given: Transplant, settings: MethodSettings = QUICK) -> Adapter:
    run = method_named(name).begin(given, settings)
    while not run.done:
        run.step()
    return run.adapter


def difference(one: Adapter, other: Adapter) -> float:
    x = features(4, seed=9)
    with torch.no_grad():
        return float((one(x) - other(x)).abs().max())


def test_methods_are_looked_up_by_name() -> None:
    assert [*MethodName][:6] == [
        *("identity", "closed-form", "back-distill", "direct-learn", "distill", "jacobian"),
    ]
    assert all(method_named(name).name == name for name in MethodName)
    with pytest.raises(TransplantError, match=r"unknown method 'backdistill'.*back-distill"):
        method_named("backdistill")


@pytest.mark.parametrize("name", ["direct-learn", "distill", "jacobian"])
def test_a_method_that_needs_samples_says_which_do_not(name: str) -> None:
    with pytest.raises(TransplantError, match=f"'{name}'.*identity, closed-form, back-distill"):
        method_named(name).begin(transplant(samples=False), QUICK)


def test_identity_passes_features_on() -> None:
    given = transplant()
    x = features(3)
    with torch.no_grad():
        h = learned("identity", given)(x)
    torch.testing.assert_close(h, 0.5 * x[:, given.permutation_C])


def test_closed_form_undoes_a_permutation_without_samples() -> None:
    teacher = task_module(1)
    permutation = torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(4))
    given = Transplant(
        TransplantProblem(teacher, shuffled(teacher, permutation), SHAPE), adapter_spec(3)
    )
    settings = MethodSettings(learning=BackDistillationSettings(draws=64))
    x = features(3)
    with torch.no_grad():
        h = learned("closed-form", given, settings)(x)
    torch.testing.assert_close(h, x[:, torch.argsort(permutation)], rtol=1e-3, atol=1e-3)


def test_closed_form_takes_its_biases_from_means() -> None:
    given = transplant(samples=False)
    means = (torch.full((CHANNELS,), 0.4), torch.full((CHANNELS,), 0.3))
    biased = learned(
        "closed-form",
        Transplant(given.problem, given.spec, None, given.permutation_C, means),
    )
    first = biased.convolutions()[0]
    assert first.bias is not None
    with torch.no_grad():
        mean = first.weight.sum((2, 3)) @ (0.5 * means[0]) + first.bias
    torch.testing.assert_close(mean, means[1])


@pytest.mark.parametrize("name", ITERATIVE)
def test_a_seed_means_one_adapter_and_a_cut_run_goes_on_bit_for_bit(name: str) -> None:
    given = transplant()
    whole = method_named(name).begin(given, QUICK)
    records = []
    while not whole.done:
        records.append(whole.step())
    cut = method_named(name).begin(given, QUICK)
    for _ in range(3):
        cut.step()
    resumed = method_named(name).begin(given, QUICK).restore(load(save(cut.state())))
    rest = []
    while not resumed.done:
        rest.append(resumed.step())
    assert rest == records[3:]
    for key, tensor in whole.state().items():
        assert torch.equal(tensor, resumed.state()[key]), key


@pytest.mark.parametrize("name", ["identity", "closed-form"])
def test_a_solved_adapter_takes_no_steps_and_has_a_state(name: str) -> None:
    run = method_named(name).begin(transplant(), QUICK)
    assert run.done
    with pytest.raises(TransplantError, match="no steps"):
        run.step()
    again = method_named("identity").begin(transplant(), QUICK).restore(load(save(run.state())))
    assert difference(again.adapter, run.adapter) == 0
    other = method_named(name).begin(transplant(convs=1), QUICK)
    with pytest.raises(TransplantError, match="another adapter"):
        other.restore(run.state())


def test_iterative_methods_differ() -> None:
    adapters = [learned(name, transplant()) for name in ITERATIVE]
    for place, one in enumerate(adapters):
        for other in adapters[place + 1 :]:
            assert difference(one, other) > 1e-5


@pytest.mark.parametrize("start", ["random", "identity", "closed-form", "matched"])
def test_learning_begins_where_it_is_told(start: Start) -> None:
    given = transplant()
    settings = MethodSettings(
        start=start, learning=QUICK.learning.model_copy(update={"steps": 0, "draws": 32})
    )
    adapter = learned("direct-learn", given, settings)
    assert difference(adapter, starting_adapter(given, start, settings)[0]) == 0
    if start == "closed-form":
        solved, _ = closed_form(
            given.problem, given.spec, Draws(count=32), permutation_C=given.permutation_C
        )
        assert difference(adapter, solved) == 0


def test_distilling_comes_nearer_to_the_teacher_without_a_label() -> None:
    given = transplant()
    assert given.samples is not None
    x = given.samples.features_NCHW
    wrong = Transplant(
        given.problem, given.spec, Samples(x, 1 - given.samples.labels_N), given.permutation_C
    )
    settings = MethodSettings(learning=BackDistillationSettings(steps=60, learning_rate=1e-2))
    target = soft_labels(given.problem, x)
    with torch.no_grad():
        torch.testing.assert_close(target, given.problem.teacher_task(x).flatten().sigmoid())

    def loss(adapter: Adapter) -> float:
        with torch.no_grad():
            y = given.problem.student_task(adapter(x)).flatten()
            return float(F.binary_cross_entropy_with_logits(y, target))

    before = loss(starting_adapter(given, "random", settings)[0])
    adapter = learned("distill", given, settings)
    entropy = float(F.binary_cross_entropy(target, target))
    assert loss(adapter) - entropy < 0.3 * (before - entropy)
    assert difference(adapter, learned("distill", wrong, settings)) == 0


def test_real_gradients_are_central_differences() -> None:
    module = task_module(1).double().eval()
    x = features(2, seed=7).double()
    step = 1e-6 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).double()
    D = real_gradient(module, x, create_graph=False)
    with torch.no_grad():
        change = (module(x + step) - module(x - step)) / 2
    torch.testing.assert_close((D * step).sum((1, 2, 3)), change.flatten(), rtol=1e-4, atol=1e-12)


def test_the_jacobian_penalty_is_zero_for_the_teacher_itself() -> None:
    given = transplant()
    assert given.samples is not None
    same = problem(1, 1)
    penalty = JacobianPenalty(same, given.samples, weight=10.0, batch_size=4)
    adapter = Adapter(adapter_spec()).identity_start()
    generator = torch.Generator().manual_seed(0)
    # Where x is exactly 0 the adapter's ReLU has derivative 0 and the teacher's gradient counts.
    positive = Samples(given.samples.features_NCHW + 1, given.samples.labels_N)
    exact = JacobianPenalty(same, positive, weight=10.0, batch_size=4)
    assert float(exact.loss(adapter, generator).detach()) == pytest.approx(0, abs=1e-9)
    assert float(penalty.loss(adapter, generator).detach()) > 1e-3


def test_a_dead_teacher_has_no_jacobian() -> None:
    given = transplant()
    assert given.samples is not None
    dead = task_module(1)
    dead.get_parameter("fc7.weight").data.zero_()
    with pytest.raises(TransplantError, match=r"mean norm 0\.0"):
        JacobianPenalty(
            TransplantProblem(dead, task_module(2), SHAPE), given.samples, weight=1, batch_size=4
        )

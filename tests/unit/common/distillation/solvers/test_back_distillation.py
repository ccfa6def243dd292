import pytest
import torch
from safetensors.torch import load, save

from rootstock.common.distillation.problem import Samples
from rootstock.common.distillation.pseudo_gradients.adjoint import pseudo_gradient
from rootstock.common.distillation.pseudo_gradients.pool import DrawPool
from rootstock.common.distillation.settings import BackDistillationSettings, Draws
from rootstock.common.distillation.solvers.back_distillation import BackDistillation
from rootstock.common.distillation.solvers.closed_form import closed_form
from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from tests.support.solver_nets import SHAPE, adapter_spec, features, problem

CHANNELS = SHAPE[0]
QUICK = BackDistillationSettings(steps=12, batch_size=4, draws=6, draws_per_step=3)


def samples(count: int = 10) -> Samples:
    """Samples that the teacher of `problem(1, 2)` tells apart."""
    x = features(count, seed=3)
    with torch.no_grad():
        y = problem(1, 2).teacher_task(x).flatten()
    return Samples(x, (y > y.median()).float())


def adapter(kernel: int = 1) -> Adapter:
    return Adapter(adapter_spec(2, kernel)).random_start(torch.Generator().manual_seed(0))


def learning(settings: BackDistillationSettings = QUICK) -> BackDistillation:
    return BackDistillation(problem(1, 2), adapter(), samples(), settings)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_run_cut_anywhere_goes_on_bit_for_bit(decay: float) -> None:
    settings = QUICK.model_copy(update={"weight_decay": decay})
    whole = learning(settings)
    records = []
    while not whole.done:
        records.append(whole.step())
    first = learning(settings)
    for _ in range(5):
        first.step()
    stored = save(first.state())  # plain tensors: this is how a checkpoint is kept
    second = learning(settings).restore(load(stored))
    resumed = []
    while not second.done:
        resumed.append(second.step())
    assert records[5:] == resumed
    assert [record.step for record in records] == list(range(1, 13))
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, second.state()[name]), name
    assert not torch.equal(
        adapter().convolutions()[0].weight, whole.adapter.convolutions()[0].weight
    )


def test_a_state_does_not_move_with_the_run_it_was_taken_from() -> None:
    run = learning()
    run.step()
    state = run.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    run.step()
    assert all(torch.equal(tensor, state[name]) for name, tensor in kept.items())


def test_the_loss_is_equation_3() -> None:
    settings = QUICK.model_copy(update={"draws_per_step": 6, "batch_size": 10, "balanced": False})
    run = learning(settings)
    pool = pool_of(draws=6)
    with torch.no_grad():
        x, labels = samples().features_NCHW, samples().labels_N
        y = problem(1, 2).student_task(adapter()(x)).flatten()
        task_loss = -(labels * y.sigmoid().log() + (1 - labels) * (-y).sigmoid().log()).mean()
        D_S = pseudo_gradient(adapter(), pool.V_NMHW, input_shape_CHW=SHAPE)
        teacher_norm = pool.D_T_NCHW.flatten(1).norm(dim=1).mean()
        alpha = teacher_norm / pool.V_NMHW.flatten(1).norm(dim=1).mean()
        square = (alpha * D_S - pool.D_T_NCHW).square().sum((1, 2, 3)).mean()
    record = run.step()
    assert record.task_loss == pytest.approx(float(task_loss), rel=1e-4)
    assert record.distillation_loss == pytest.approx(float(10 / teacher_norm * square), rel=1e-4)
    assert record.loss == pytest.approx(record.task_loss + record.distillation_loss)


def test_direct_learn_fits_its_samples_and_takes_no_draw() -> None:
    settings = BackDistillationSettings(steps=60, learning_rate=0.02, distillation=0, batch_size=16)
    run = BackDistillation(problem(1, 2), adapter(), samples(40), settings)
    records = []
    while not run.done:
        records.append(run.step())
    assert {record.distillation_loss for record in records} == {0.0}
    first, last = (sum(r.loss for r in part) / 10 for part in (records[:10], records[-10:]))
    assert last < 0.7 * first


def test_without_samples_it_approaches_the_closed_form() -> None:
    _, report = closed_form(problem(1, 2), adapter_spec(), Draws(count=32), ridge=0)
    settings = BackDistillationSettings(steps=200, learning_rate=0.05, draws=32, draws_per_step=32)
    start = Adapter(adapter_spec()).random_start(torch.Generator().manual_seed(0))
    run = BackDistillation(problem(1, 2), start, None, settings)
    records = []
    while not run.done:
        records.append(run.step())
    pool = pool_of()
    square = pool.D_T_NCHW.square().sum((1, 2, 3)).mean()
    minimum = 10 / pool.teacher_norm * float(square) * report.residual**2
    assert {record.task_loss for record in records} == {0.0}
    assert records[0].loss > 1.2 * minimum
    assert 0.999 * minimum < records[-1].loss < 1.02 * minimum
    bias = run.adapter.convolutions()[0].bias
    assert bias is not None
    assert torch.equal(torch.zeros(CHANNELS), bias), "D' holds no bias"


def pool_of(beta: float = 1.0, draws: int = 32, max_bytes: int = 1 << 30) -> DrawPool:
    scaled = adapter()
    scaled.beta.fill_(beta)
    return DrawPool.filled(problem(1, 2), scaled, Draws(count=draws), max_bytes)


def test_alpha_balances_teacher_and_student_at_the_magnitude_beta_gives() -> None:
    pool = pool_of()
    student, teacher = (x.flatten(1).norm(dim=1).mean() for x in (pool.V_NMHW, pool.D_T_NCHW))
    assert pool.alpha == pytest.approx(float(teacher / student), rel=1e-5)
    assert pool_of(beta=0.5).alpha == pytest.approx(2 * pool.alpha)


def test_a_pool_keeps_to_its_memory() -> None:
    bytes_a_draw = 2 * 4 * CHANNELS * SHAPE[1] * SHAPE[2]
    pool = pool_of(draws=500, max_bytes=5 * bytes_a_draw)
    assert len(pool.V_NMHW) == len(pool.D_T_NCHW) == 5


def test_a_balanced_loss_weighs_both_sides_alike() -> None:
    x = features(4, seed=3)
    labels = torch.tensor([1.0, 0.0, 0.0, 0.0])

    def first_loss(balanced: bool) -> float:
        settings = QUICK.model_copy(update={"distillation": 0.0, "balanced": balanced})
        return BackDistillation(problem(1, 2), adapter(), Samples(x, labels), settings).step().loss

    with torch.no_grad():
        y = problem(1, 2).student_task(adapter()(x)).flatten()
        losses = torch.nn.functional.softplus(y * (1 - 2 * labels))
    assert first_loss(False) == pytest.approx(float(losses.mean()), rel=1e-5)
    assert first_loss(True) == pytest.approx(float((losses[0] + losses[1:].mean()) / 2), rel=1e-5)


def test_decay_pulls_to_the_start() -> None:
    def distance(decay: float) -> float:
        settings = BackDistillationSettings(
            steps=30, learning_rate=0.02, distillation=0, weight_decay=decay
        )
        run = BackDistillation(problem(1, 2), adapter(), samples(), settings)
        while not run.done:
            run.step()
        change = run.adapter.convolutions()[0].weight - adapter().convolutions()[0].weight
        return float(change.detach().norm())

    assert distance(5.0) < 0.9 * distance(0.0)


def test_frozen_modules_stay_as_they_are() -> None:
    frozen = problem(1, 2)
    before = {k: v.clone() for k, v in frozen.student_task.state_dict().items()}
    run = BackDistillation(frozen, adapter(), samples(), QUICK)
    while not run.done:
        run.step()
    after = frozen.student_task.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in frozen.student_task.parameters())


def test_what_cannot_be_learned_is_refused() -> None:
    with pytest.raises(TransplantError, match="nothing to learn from"):
        BackDistillation(
            problem(1, 2), adapter(), None, QUICK.model_copy(update={"distillation": 0.0})
        )
    wrong = Samples(torch.zeros(2, CHANNELS + 1, 8, 8), torch.zeros(2))
    with pytest.raises(TransplantError, match="samples have features of shape"):
        BackDistillation(problem(1, 2), adapter(), wrong, QUICK)
    run = learning(QUICK.model_copy(update={"steps": 1}))
    run.step()
    with pytest.raises(TransplantError, match="all 1 steps are taken"):
        run.step()


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    run = BackDistillation(
        problem(1, 2),
        adapter(),
        Samples(torch.full((2, *SHAPE), torch.inf), torch.tensor([0.0, 1.0])),
        QUICK,
    )
    with pytest.raises(TransplantError, match="at step 1"):
        run.step()


def test_a_state_of_another_run_is_refused() -> None:
    state = learning().state()
    other = BackDistillation(problem(1, 2), adapter(kernel=3), samples(), QUICK)
    with pytest.raises(TransplantError, match="another adapter"):
        other.restore(state)
    ahead = {**state, "step": torch.tensor(13)}
    with pytest.raises(TransplantError, match="step 13"):
        learning().restore(ahead)

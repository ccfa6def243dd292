"""Zero-sample transplanting in closed form (METHODS 1b, 1c): no image, no learning rate, no epoch.

With one convolution and dummy-1 in the adapter, D'_S is linear in the adapter's weight W:

    D'_S = P^T β conv^T(W) V,   V = J'_gS^T G,   P the reorder layer.

So min_W Σ ‖α D'_S − D'_T‖² over draws of (G, x_rand) is a least-squares problem. Deeper adapters
get it as their first convolution and Dirac kernels above, which pass on what is not negative.

Scale. Least squares finds the scale of W by itself, so that D'_S and D'_T agree to first order and
α may be 1 while solving. The scale that is left out is the one that D' cannot know, because D'
holds no bias: g_S's biases were learned with features of the magnitude of f_S(I), and least squares
shrinks W where V and D'_T hardly correlate. β gives x that magnitude, so W is rescaled to keep it,
‖conv^T(W) V‖ = ‖V‖ over the draws, which only scales y_S. For g_S = g_T, W stays as it is.

Shapes: N draws, C channels of x, M channels of h(x), K kernel side, H/W height and width,
U = M K K unknowns per channel of x, P places of all draws.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.distillation.problem import TransplantProblem
from rootstock.common.distillation.pseudo_gradients.maps import in_batches
from rootstock.common.distillation.settings import DEFAULT_DRAWS, Draws
from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.spec import AdapterSpec


@dataclass(frozen=True)
class Report:
    """Numbers that say how good a solution is."""

    draws: int
    residual: float
    """‖D'_S − D'_T‖ / ‖D'_T‖ of the least-squares solution over all draws: 0 says that the student
    can be the teacher, near 1 that the two task modules' units hardly correspond."""
    teacher_norm: float
    """E‖D'_T‖."""
    student_norm: float
    """E‖V‖."""
    gain: float
    """Factor that kept the features' magnitude."""

    def numbers(self) -> dict[str, float]:
        """Return the numbers by name."""
        return {name: float(value) for name, value in asdict(self).items()}


@dataclass
class NormalEquations:
    """Sums over draws, float64: every draw can be forgotten once it is added."""

    A_UU: Tensor
    """Σ of unfolded V times its transpose."""
    B_UC: Tensor
    """Σ of unfolded V times D'_T, channels in the adapter's order."""
    teacher_square: float = 0.0
    student_square: float = 0.0
    teacher_norms: float = 0.0
    student_norms: float = 0.0
    draws: int = 0

    @classmethod
    def zero(cls, spec: AdapterSpec, device: torch.device) -> NormalEquations:
        """Start with no draws."""
        unknowns = spec.out_channels * spec.kernel**2
        A_UU = torch.zeros(unknowns, unknowns, dtype=torch.float64, device=device)
        return cls(A_UU, A_UU.new_zeros(unknowns, spec.in_channels))

    def add(self, V_NMHW: Tensor, D_T_NCHW: Tensor, kernel: int) -> None:
        """Add draws: V as it comes, D'_T with its channels in the adapter's order."""
        V_UP = _unfolded(V_NMHW, kernel).double()
        D_CP = D_T_NCHW.transpose(0, 1).flatten(1).double()
        self.A_UU += V_UP @ V_UP.T
        self.B_UC += V_UP @ D_CP.T
        self.draws += len(V_NMHW)
        student_N, teacher_N = (x.double().square().flatten(1).sum(1) for x in (V_NMHW, D_T_NCHW))
        self.student_square += float(student_N.sum())
        self.teacher_square += float(teacher_N.sum())
        self.student_norms += float(student_N.sqrt().sum())
        self.teacher_norms += float(teacher_N.sqrt().sum())

    def solve(self, ridge: float) -> Tensor:
        """Return W (U, C) of min Σ ‖W^T V − D'_T‖² + ridge · mean(diag A) ‖W‖²."""
        unknowns = len(self.A_UU)
        damping = ridge * self.A_UU.trace() / unknowns
        damped_UU = self.A_UU + damping * torch.eye(unknowns).to(self.A_UU)
        factor_UU, failed = torch.linalg.cholesky_ex(damped_UU)
        W_UC = torch.cholesky_solve(self.B_UC, factor_UU)
        if int(failed) or not bool(torch.isfinite(W_UC).all()):
            raise TransplantError(
                f"the normal equations of {unknowns} unknowns from {self.draws} draws cannot be "
                f"solved with ridge {ridge}; take more draws or a larger ridge"
            )
        return W_UC

    def residual(self, W_UC: Tensor) -> float:
        """Return ‖W^T V − D'_T‖ / ‖D'_T‖ over all draws."""
        square = self.teacher_square + float((W_UC * (self.A_UU @ W_UC - 2 * self.B_UC)).sum())
        return float((max(square, 0.0) / self.teacher_square) ** 0.5)


def closed_form(
    problem: TransplantProblem,
    spec: AdapterSpec,
    drawn: Draws = DEFAULT_DRAWS,
    *,
    batch: int = 32,
    ridge: float = 1e-6,
    permutation_C: Tensor | None = None,
) -> tuple[Adapter, Report]:
    """Learn an adapter without any sample.

    Its first convolution is solved for, the others are Dirac. Biases are zero: they never enter D'
    (METHODS 1d, `bias_from_means`). `batch` draws at a time bound memory and change nothing else
    but rounding. `ridge` is damping, relative to the mean diagonal of the normal matrix.
    """
    adapter = problem.identity_start(spec, permutation_C)
    equations = normal_equations(problem, adapter, drawn, batch)
    W_UC = equations.solve(ridge)
    # W here still holds β; ‖conv^T(W) V‖ over draws follows from the same sums.
    square = float((W_UC * (equations.A_UU @ W_UC)).sum())
    gain = (equations.student_square / square) ** 0.5 if square > 0 else 0.0
    if not 0 < gain < float("inf"):
        raise TransplantError(
            "the pseudo-gradients of teacher and student have nothing in common, so the solution "
            "is zero; use task modules that grew from common initial weights"
        )
    _set_first(adapter, gain * W_UC)
    report = Report(
        draws=equations.draws,
        residual=equations.residual(W_UC),
        teacher_norm=equations.teacher_norms / equations.draws,
        student_norm=equations.student_norms / equations.draws,
        gain=gain,
    )
    return adapter, report


def normal_equations(
    problem: TransplantProblem, adapter: Adapter, drawn: Draws, batch: int
) -> NormalEquations:
    """Sum up the normal equations of the adapter's first convolution."""
    spec = adapter.spec
    equations = NormalEquations.zero(spec, adapter.beta.device)
    for V_NMHW, D_T_NCHW in in_batches(problem, adapter, drawn, batch):
        equations.add(V_NMHW, D_T_NCHW[:, adapter.permutation], spec.kernel)
    for name, square in (
        ("teacher", equations.teacher_square),
        ("student", equations.student_square),
    ):
        if not 0 < square < float("inf"):
            raise TransplantError(
                f"the {name}'s pseudo-gradients have squared norm {square} over {drawn.count} "
                "draws; a task module that is dead or not finite cannot be transplanted"
            )
    return equations


def _unfolded(V_NMHW: Tensor, kernel: int) -> Tensor:
    """Return V (U, P): column p holds what the transposed convolution sees at place p."""
    if kernel == 1:
        return V_NMHW.transpose(0, 1).flatten(1)
    patches_NUP = F.unfold(V_NMHW, kernel, padding=kernel // 2)
    return patches_NUP.transpose(0, 1).flatten(1)


def _set_first(adapter: Adapter, W_UC: Tensor) -> None:
    spec = adapter.spec
    weight_MKKC = W_UC.reshape(spec.out_channels, spec.kernel, spec.kernel, spec.in_channels)
    first: nn.Conv2d = adapter.convolutions()[0]
    with torch.no_grad():
        # A patch of V runs against the kernel: the adjoint of a convolution is flipped.
        first.weight.copy_(weight_MKKC.flip(1, 2).permute(0, 3, 1, 2))

"""The loop that all recipes train by: balanced epochs, one schedule, resumable checkpoints.

Checkpoints are safetensors, written whole or not at all; never pickle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rootstock.common.errors import DataError, StorageError
from rootstock.common.heap import tensors_kept
from rootstock.common.nets.training import (
    cosine,
    optimiser_state,
    prefixed,
    restore_optimiser,
    under,
)
from rootstock.common.weights import safetensors_io
from rootstock.site_agent.config import TrainingConfig
from rootstock.site_agent.data.images import balanced_order
from rootstock.site_agent.recipes.interface import TrainingRun
from rootstock.site_agent.state import check

CHECKPOINT = "checkpoint.safetensors"
OPTIMISER = "optimiser"
"""What a checkpoint calls the optimiser whose rate follows the schedule."""
_EPOCH = "epoch"
_WARM_UP = 0.05
"""Share of the steps over which the learning rate rises: AdamW's first steps are its roughest."""

Modules = Mapping[str, nn.Module]
Optimisers = Mapping[str, torch.optim.Optimizer]
"""By the name that their state has in a checkpoint."""


@tensors_kept()
def fit(
    config: TrainingConfig,
    run: TrainingRun,
    modules: Modules,
    optimisers: Optimisers,
    step: Callable[[Tensor, torch.Generator], float],
    epoch_done: Callable[[int], None] = lambda _: None,
) -> None:
    """Train from the run's checkpoint, if there is one, to the last epoch.

    All randomness of an epoch follows from (seed, epoch), so a resumed run repeats nothing and
    skips nothing. A checkpoint holds modules and optimisers, of which the rate of `OPTIMISER`
    follows the schedule, times the "factor" of a group of its parameters that has one. `step`
    learns from the training images at the given indices, with the epoch's generator for what it
    draws on the CPU, and returns the loss; `epoch_done` is called with the number of an epoch, from
    0, before its checkpoint is written.
    """
    training = run.data.training
    per_epoch = 2 * max(training.counts()) // config.batch_size
    if per_epoch == 0:
        raise DataError(
            f"{len(training)} training images do not make one batch of {config.batch_size}; "
            "add images or lower training.batch_size"
        )
    steps = config.epochs * per_epoch
    path = run.folder / CHECKPOINT
    epoch = restore(path, modules, optimisers)
    groups = optimisers[OPTIMISER].param_groups  # restoring makes new ones
    device = groups[0]["params"][0].device  # where dropout draws
    while epoch < config.epochs:
        generator = torch.Generator().manual_seed(_mix(config.seed, epoch))
        order = balanced_order(training.labels_N, generator)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(_mix(config.seed, epoch) + 1)  # dropout's
            for batch in range(per_epoch):
                check(run.stop)
                number = epoch * per_epoch + batch
                for group in groups:
                    rate = config.learning_rate * group.get("factor", 1.0)
                    group["lr"] = rate * schedule(number, steps)
                loss = step(order[batch * config.batch_size :][: config.batch_size], generator)
                run.on_progress(number + 1, steps, f"epoch {epoch + 1}, loss {loss:.3f}")
        epoch_done(epoch)
        epoch += 1
        if epoch % config.checkpoint_epochs == 0 or epoch == config.epochs:
            save(path, modules, optimisers, epoch)


def train_shape(modules: Modules, device: torch.device) -> None:
    """Move modules to a device, in the memory order that is a third faster on a CPU."""
    for module in modules.values():
        module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def ship_shape(modules: Modules) -> None:
    """Bring modules into the form in which they ship: plain order, frozen, evaluation mode."""
    for module in modules.values():
        module.to(memory_format=torch.contiguous_format)
        module.eval().requires_grad_(False)


def schedule(step: int, steps: int) -> float:
    """Return the learning rate's factor: a short rise, then half a cosine down to 0."""
    rise = max(1, round(_WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    return cosine(step - rise, max(1, steps - rise))


def save(path: Path, modules: Modules, optimisers: Optimisers, epoch: int) -> None:
    """Write weights, the optimisers' states and the number of epochs done."""
    tensors = {_EPOCH: torch.tensor(epoch, dtype=torch.int64)}
    for name, module in modules.items():
        tensors |= prefixed(f"module/{name}/", module.state_dict())
    for name, optimiser in optimisers.items():
        tensors |= prefixed(f"{name}/", optimiser_state(optimiser))
    safetensors_io.write(path, tensors)


def restore(path: Path, modules: Modules, optimisers: Optimisers) -> int:
    """Load what `save` wrote, and return the number of epochs done; 0 without a file."""
    if not path.exists():
        return 0
    try:
        tensors = safetensors.torch.load_file(path)
        for name, module in modules.items():
            module.load_state_dict(under(f"module/{name}/", tensors))
        for name, optimiser in optimisers.items():
            restore_optimiser(optimiser, under(f"{name}/", tensors))
        return int(tensors[_EPOCH])
    except (safetensors.SafetensorError, OSError, RuntimeError, KeyError, ValueError) as error:
        raise StorageError(
            f"{path}: is not a checkpoint of this teacher net ({error}); "
            "remove it, and training starts over"
        ) from error


def _mix(seed: int, epoch: int) -> int:
    """Return one seed out of two numbers, different for each pair in practice."""
    return (seed * 1_000_003 + epoch * 2) % (1 << 62)

"""A net in two: the layers that stay as the plan's start has them, and those that learn.

What the first say to an image never changes, so it can be computed once, for a few augmented views
of every image, and kept: an epoch then costs the layers that learn.

N images, V views, C channels, H/W height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rootstock.common.distillation.problem import logits
from rootstock.common.distillation.settings import STILL
from rootstock.common.errors import ConfigurationError
from rootstock.common.nets.training import mixed_precision
from rootstock.site_agent.config import TrainingConfig
from rootstock.site_agent.data.images import Batch, batch_of
from rootstock.site_agent.recipes.interface import Teacher, TrainingRun
from rootstock.site_agent.state import check

MAX_BYTES = 8 << 30
"""Of kept features: they lie in memory."""
_BATCH = 32

Features = dict[str, Tensor]
"""By task, what goes into its first layer that learns; under "" what f's, or other tasks', take."""
_UNLABELLED = -1


@dataclass(frozen=True)
class Parts:
    """The layers of a teacher net, which are the net's own, on either side of `frozen`."""

    trunk: nn.Sequential
    """f's that stay."""
    features: nn.Sequential
    """f's that learn."""
    below: dict[str, nn.Sequential]
    """By task, g's that stay; none, where f has some that learn."""
    above: dict[str, nn.Sequential]
    """By task, g's that learn."""

    @classmethod
    def of(cls, net: Teacher, frozen: str | None) -> Parts:
        """Part a net behind the layer of that name; ConfigurationError if nothing is left.

        Where it is a layer of task modules, all of f stays, and all layers of those task modules
        learn that have no such layer.
        """
        f, tasks = net.category_module, net.task_modules
        none: dict[str, nn.Sequential] = {task: nn.Sequential() for task in tasks}
        if frozen is None:
            return cls(f[:0], f, none, dict(tasks))
        if (count := _up_to(f, frozen)) and count < len(f):
            return cls(f[:count], f[count:], none, dict(tasks))
        counts = {task: _up_to(g, frozen) for task, g in tasks.items()}
        if not count and not any(counts.values()):
            names = [name for net in (f, *tasks.values()) for name, _ in net.named_children()]
            raise ConfigurationError(
                f"training.frozen = '{frozen}' is no layer of the net; give one of "
                f"{', '.join(dict.fromkeys(names))}"
            )
        parts = cls(
            f,
            f[:0],
            {task: g[: counts[task]] for task, g in tasks.items()},
            {task: g[counts[task] :] for task, g in tasks.items()},
        )
        if idle := [
            task for task, g in parts.above.items() if not any(True for _ in g.parameters())
        ]:
            raise ConfigurationError(
                f"training.frozen = '{frozen}' leaves nothing of task module '{idle[0]}' that "
                "could learn; give an earlier layer"
            )
        return parts

    def freeze(self, *, statistics: bool) -> list[nn.Module]:
        """Return the layers that stay in evaluation mode; the frozen ones need no gradient.

        With `statistics` all BatchNorm layers do, whichever learn.
        """
        still = [layer for part in (self.trunk, *self.below.values()) for layer in part]
        for layer in still:
            layer.requires_grad_(False)
        if statistics:
            learning = (self.features, *self.above.values())
            layers = (layer for part in learning for layer in part.modules())
            still += [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
        return still

    def lower(self, x_NCHW: Tensor) -> Features:
        """Return what the layers that stay say to images (N,C,H,W)."""
        out_NCHW = self.trunk(x_NCHW)
        features = {task: g(out_NCHW) for task, g in self.below.items() if len(g)}
        return features if len(features) == len(self.below) else {"": out_NCHW, **features}

    def upper(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return every task's logits, (N) or (N,H,W)."""
        inputs = dict(features)
        if "" in inputs:
            inputs = dict.fromkeys(self.above, self.features(inputs.pop(""))) | inputs
        return {task: logits(g(inputs[task])) for task, g in self.above.items()}


def _up_to(net: nn.Sequential, name: str) -> int:
    names = [name for name, _ in net.named_children()]
    return names.index(name) + 1 if name in names else 0


class KeptFeatures:
    """What the layers that stay say to V views of every training image, each computed once.

    The first view is the image as it is. Kept in 16 bits (bfloat16): a view differs from the next
    by far more than that rounds away.
    """

    def __init__(
        self, parts: Parts, run: TrainingRun, config: TrainingConfig, device: torch.device
    ) -> None:
        self._count, self._views = len(run.data.training), config.views
        self._device = device
        self._labels_N = run.data.training.labels_N
        self._pixels_NHW: Tensor | None = None
        self._kept: dict[str, Tensor] = {}
        with torch.no_grad(), _precision(device):
            for begin in range(0, self._views * self._count, _BATCH):
                check(run.stop)
                end = min(begin + _BATCH, self._views * self._count)
                batch = self._views_of(torch.arange(begin, end), run, config)
                x_NCHW = batch.x_NCHW.to(device, memory_format=torch.channels_last)
                self._keep(begin, parts.lower(x_NCHW), batch.labels_NHW)
                view = begin // self._count + 1
                run.on_progress(
                    end,
                    self._views * self._count,
                    f"features of frozen layers, view {view} of {self._views}",
                )

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Features, Batch]:
        """Return features of a view each, drawn at random, and their labels."""
        view = torch.randint(self._views, indices.shape, generator=generator)
        rows = view * self._count + indices
        features = {task: kept[rows].float().to(self._device) for task, kept in self._kept.items()}
        pixels_NHW = None
        if self._pixels_NHW is not None:
            pixels_NHW = self._pixels_NHW[rows].float()
            pixels_NHW[pixels_NHW == _UNLABELLED] = torch.nan
        return features, Batch(torch.empty(0), self._labels_N[indices], pixels_NHW)

    def _views_of(self, rows: Tensor, run: TrainingRun, config: TrainingConfig) -> Batch:
        """Return the views of these rows, the same at every start."""
        seed = config.seed * 1_000_003 + int(rows[0])
        generator = torch.Generator().manual_seed(seed % (1 << 62))
        parts = []
        for chosen, augment in (
            (rows[rows < self._count], STILL),
            (rows[rows >= self._count], config.augment),
        ):
            if len(chosen):
                parts.append(batch_of(run.data, chosen % self._count, augment, generator))
        pixels = [part.labels_NHW for part in parts if part.labels_NHW is not None]
        return Batch(
            torch.cat([part.x_NCHW for part in parts]),
            torch.cat([part.labels_N for part in parts]),
            torch.cat(pixels) if pixels else None,
        )

    def _keep(self, begin: int, features: Features, pixels_NHW: Tensor | None) -> None:
        if not self._kept:
            rows = self._views * self._count
            size = 2 * sum(rows * part[0].numel() for part in features.values())
            if pixels_NHW is not None:
                size += rows * pixels_NHW[0].numel()
            if size > MAX_BYTES:
                raise ConfigurationError(
                    f"training.views = {self._views}: the features of {self._count} images in so "
                    f"many views have {size / 1e9:.1f} GB, the limit is {MAX_BYTES / 1e9:.1f}; "
                    "lower it, or freeze up to a layer with a smaller map"
                )
            self._kept = {
                task: torch.empty(rows, *part.shape[1:], dtype=torch.bfloat16)
                for task, part in features.items()
            }
            if pixels_NHW is not None:
                self._pixels_NHW = torch.empty(rows, *pixels_NHW.shape[1:], dtype=torch.int8)
        if self._pixels_NHW is not None and pixels_NHW is not None:
            labels_NHW = pixels_NHW.nan_to_num(_UNLABELLED).to(torch.int8)
            self._pixels_NHW[begin : begin + len(labels_NHW)] = labels_NHW
        for task, part in features.items():
            self._kept[task][begin : begin + len(part)] = part.to("cpu", torch.bfloat16)


def _precision(device: torch.device) -> AbstractContextManager[object]:
    dtype = mixed_precision(device)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)

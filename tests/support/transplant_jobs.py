"""A small transplant on real digits: two nets of one start, blobs in a local store."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec
from rootstock.common.weights.manifest import BlobEntry
from rootstock.common.weights.salt import salted
from rootstock.coordinator.config import DistillationConfig
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.jobs.model import TransplantJob
from rootstock.coordinator.paths import samples_area

SPEC = ArchitectureSpec(
    name="small-vgg", settings={"width": 4, "hidden": 8, "in_channels": 1}, split="pool1"
)
TASK = TaskSpec(name="classification")
OUTLINE = TaskSpec(name="outline", kind="binary-segmentation")


def digits(digit: int, count: int) -> tuple[Tensor, Tensor]:
    """As many images of a digit as of others: (2 count, 1, 32, 32) and labels (2 count)."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    targets = torch.tensor(data.target)
    chosen = torch.cat([images[targets == digit][:count], images[targets != digit][:count]])
    labels = torch.cat([torch.ones(count), torch.zeros(count)])
    return functional.interpolate(chosen, size=32, mode="bilinear"), labels


PAPERS = {"zero_sample_method": "closed-form", "few_sample_method": "back-distill"}
"""Quick ones, for tests of what is around a method."""


@cache
def trained(digit: int) -> tuple[nn.Sequential, nn.Sequential]:
    """f and g for a digit against others, trained a little from the common start."""
    category_module, heads = initial_modules(SPEC, [TASK], seed=3)
    net = nn.Sequential(category_module, heads[TASK.name]).eval()  # no dropout: deterministic
    images_NCHW, labels_N = digits(digit, 60)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(40):
        loss = functional.binary_cross_entropy_with_logits(net(images_NCHW).flatten(), labels_N)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return category_module, heads[TASK.name]


class Transplant:
    """Everything that a job needs, under a folder."""

    def __init__(self, folder: Path) -> None:
        self.store = LocalStore(folder / "store")
        self.uri = str(folder / "store")
        category_module, teacher = trained(3)
        _, student = trained(0)
        images_NCHW, labels_N = digits(3, 10)
        self.category_module = self.put(category_module)
        self.teacher = self.put(teacher)
        self.student = self.put(student)
        self.samples = self.share({"images": images_NCHW, "labels": labels_N})

    def share(self, tensors: Mapping[str, Tensor]) -> BlobEntry:
        """Put samples where those of a submission lie."""
        return put_tensors(self.store.area(samples_area("sub-0001")), tensors)

    def put(self, module: nn.Module) -> BlobEntry:
        return put_tensors(self.store, module.state_dict())

    def statistics(self, norm: float, mean: float, *, with_salt: bool = False) -> BlobEntry:
        """Statistics as a lab ships them for the category module's two convolutions."""
        tensors = {"feature_norm": torch.tensor([norm])}
        for layer in ("conv1_1", "conv1_2"):
            tensors[f"mean/{layer}"] = torch.full((4,), mean)
            tensors[f"variance/{layer}"] = torch.full((4,), 0.25)
        if with_salt:
            tensors = {name: salted(values_C) for name, values_C in tensors.items()}
        return put_tensors(self.store, tensors)

    def measured(self) -> BlobEntry:
        """Statistics that are true of the teacher's own images: images can be dreamed from them."""
        images_NCHW, _ = digits(3, 60)
        tensors: dict[str, Tensor] = {}
        outputs_NCHW = images_NCHW
        with torch.no_grad():
            for module in trained(3):
                for name, layer in module.named_children():
                    outputs_NCHW = layer(outputs_NCHW)
                    if isinstance(layer, nn.Conv2d):
                        variance_C, mean_C = torch.var_mean(outputs_NCHW, (0, 2, 3), correction=0)
                        tensors |= {f"mean/{name}": mean_C, f"variance/{name}": variance_C}
        return put_tensors(self.store, tensors)

    def job(self, merge_id: str = "m1", **changes: object) -> TransplantJob:
        values: dict[str, object] = {
            "merge_id": merge_id,
            "submission_id": "sub-0001",
            "task": TASK,
            "teacher_architecture": SPEC,
            "student_architecture": SPEC,
            "category_module": self.category_module,
            "teacher_task_module": self.teacher,
            "student_task_module": self.student,
            "samples": self.samples,
            "settings": DistillationConfig(draws=64, steps=60, learning_rate=1e-2, **PAPERS),
            "artifacts": self.uri,
            "checkpoint_steps": 20,
        }
        return TransplantJob.model_validate(values | changes)


@cache
def outlining(seed: int) -> nn.Sequential:
    """Return g of a segmentation for the digit 3's f, trained a little to find the ink."""
    category_module, _ = trained(3)
    task_module = initial_modules(SPEC, [OUTLINE], seed=seed)[1][OUTLINE.name].eval()
    images_NCHW, _ = digits(3, 20)
    with torch.no_grad():
        x_NCHW = category_module(images_NCHW)
    optimiser = torch.optim.Adam(task_module.parameters(), lr=1e-2)
    for _ in range(40):
        loss = functional.binary_cross_entropy_with_logits(
            task_module(x_NCHW), (images_NCHW > 0.5).float()
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return task_module


def outlines(images_NCHW: Tensor) -> Tensor:
    """Return masks (N, 32, 32) of the ink, with a rim that nobody labelled."""
    masks = (images_NCHW[:, 0] > 0.5).to(torch.uint8)
    masks[:, :2] = 255
    return masks

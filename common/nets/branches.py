"""Layers that hold two branches, so that a net that branches stays one sequence of layers.

Shapes: N batch, C channels of the input, O out-channels, H/W height and width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.errors import TransplantError


class PaddedShortcut(nn.Module):
    """A shortcut without weights: every stride-th pixel, and zeros for the channels that are new.

    Option A of Deep Residual Learning (He et al., 2016, section 3.3), which its nets for 32 pixels
    use; option B is a 1×1 convolution. Of O − C new channels half are below, half above.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        if out_channels < in_channels:
            raise TransplantError(
                f"a padded shortcut cannot take {in_channels} channels to {out_channels}; "
                "it adds channels and drops none: use a 1×1 convolution"
            )
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        self.before = (out_channels - in_channels) // 2

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return (N, O, ⌈H/stride⌉, ⌈W/stride⌉)."""
        thinned = x_NCHW[:, :, :: self.stride, :: self.stride]
        after = self.out_channels - self.in_channels - self.before
        return F.pad(thinned, (0, 0, 0, 0, self.before, after))


DEEP = "deep"
"""Name of `SkipFusion`'s deep branch, in the names of its tensors."""


class SkipFusion(nn.Module):
    """Sum of a deep branch, which goes down and comes back up, and of a shallow one.

    y = deep(x) + skip(x) (Long et al., 2015); both give maps of one size.
    """

    def __init__(self, deep: nn.Module, skip: nn.Module) -> None:
        super().__init__()
        self.deep, self.skip = deep, skip

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return (N, O, H, W)."""
        total: Tensor = self.deep(x_NCHW) + self.skip(x_NCHW)
        return total

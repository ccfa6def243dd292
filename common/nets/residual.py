"""What residual nets need beside torchvision's own blocks.

Shapes: N batch, C channels, O out-channels, H/W height and width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.errors import TransplantError


class PaddedShortcut(nn.Module):
    """A shortcut without weights: every stride-th pixel, and zeros for the channels that are new.

    Option A of Deep Residual Learning (He et al., 2016, section 3.3), which its nets for 32 pixels
    use; option B is a 1×1 convolution.

    Parameters
    ----------
    in_channels, out_channels
        C and O; the O − C new channels are half below, half above.
    stride
        Of the block whose shortcut it is.

    Raises
    ------
    TransplantError
        If there are fewer channels above than below.
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

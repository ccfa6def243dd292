"""What L2T-ww is held against: other ways to learn from a source of another architecture.

Feature matching (FitNets) is `Transfer` with meta-networks that learn nothing.

Shapes: N images, C channels, H/W height and width, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.l2t.distances import Size, resized


def attention(map_NCHW: Tensor) -> Tensor:
    """Return the attention map (N, HW): squares summed over channels, of norm 1.

    Zagoruyko and Komodakis, 2017, "Paying more attention to attention", equation 1 with p = 2.
    """
    return F.normalize(map_NCHW.square().sum(1).flatten(1))


def attention_loss(source_NCHW: Tensor, target_NCHW: Tensor) -> Tensor:
    """Return the mean over images and pixels of squared differences of attention maps.

    A source's map of another size is brought to the target's, bilinearly. As in the published code
    of attention transfer, which weights it by 1,000.
    """
    size: Size = (target_NCHW.shape[2], target_NCHW.shape[3])
    difference_NP = attention(resized(source_NCHW, size)) - attention(target_NCHW)
    return difference_NP.square().mean()


def distillation_loss(source_NO: Tensor, target_NO: Tensor, temperature: float = 2.0) -> Tensor:
    """Return what learning without forgetting adds: the source's answers to the new images.

    Cross-entropy of softened outputs, mean over images (Li and Hoiem, 2016, equations 2 and 3;
    temperature 2, weight 1).

    Parameters
    ----------
    source_NO
        The source's outputs, without a graph.
    target_NO
        Of a head that the target has for the source's task.
    temperature
        T.
    """
    told_NO = torch.softmax(source_NO / temperature, 1)
    return -(told_NO * torch.log_softmax(target_NO / temperature, 1)).sum(1).mean()

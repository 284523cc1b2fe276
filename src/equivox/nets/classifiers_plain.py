"""The plain networks that the published experiments compare with (steerable.md 5.1, 5.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from equivox.nets.classifiers_gated import ENTRY_SCALE
from equivox.nn.lowpass import LowPass3d


class TetrisCNN(nn.Module):
    """The plain network beside :class:`TetrisNet`: 6,221,832 parameters for eight classes.

    Low-pass of scale 2; channels 43, 144, 160, 128; kernels of 5 voxels with 4 of padding, strides 1, 2, 2, 1, batch
    norm and ReLU; mean over space, dropout 0.2, linear.

    Parameters
    ----------
    classes, channels_in
        Number of logits, channels of the input.
    smooth_stride
        Low-pass before every subsampling; ``False``: strided convolutions.
    """

    def __init__(self, classes: int = 8, channels_in: int = 1, smooth_stride: bool = True) -> None:
        super().__init__()
        widths = (channels_in, 43, 144, 160, 128)
        layers: list[nn.Module] = [LowPass3d(ENTRY_SCALE)]
        for before, after, stride in zip(widths[:-1], widths[1:], (1, 2, 2, 1), strict=True):
            layers.append(nn.Conv3d(before, after, 5, padding=4, stride=1 if smooth_stride else stride))
            if stride > 1 and smooth_stride:
                layers.append(LowPass3d(float(stride), stride=stride))
            layers += [nn.BatchNorm3d(after), nn.ReLU()]
        self.blocks = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, volume: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        field: Tensor = self.blocks(volume)
        logits: Tensor = self.head(self.dropout(field.mean(dim=(2, 3, 4))))
        return logits


class PlainResidual3d(nn.Module):
    """Norm, convolution, dropout, stride, ReLU, norm, convolution; a shortcut around it; ReLU after the sum.

    Parameters
    ----------
    channels_in, channels_out
        Widths.
    kernel_size
        Taps per axis.
    stride
        By average pooling over windows of the kernel's size, zeros of the padding counted.
    dropout
        Chance of a whole channel to be dropped.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel_size: int = 3, *, stride: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.pool = nn.AvgPool3d(kernel_size, stride, padding) if stride > 1 else nn.Identity()
        self.first = nn.Sequential(
            nn.BatchNorm3d(channels_in),
            nn.Conv3d(channels_in, channels_out, kernel_size, padding=padding, bias=False),
            nn.Dropout3d(dropout),
        )
        self.second = nn.Sequential(
            nn.BatchNorm3d(channels_out),
            nn.Conv3d(channels_out, channels_out, kernel_size, padding=padding, bias=False),
            nn.Dropout3d(dropout),
        )
        changes = channels_in != channels_out or stride > 1
        self.shortcut = (
            nn.Sequential(nn.BatchNorm3d(channels_in), nn.Conv3d(channels_in, channels_out, 1, bias=False))
            if changes
            else None
        )

    def forward(self, field: Float[Tensor, "batch channel_in x y z"]) -> Float[Tensor, "batch channel_out x2 y2 z2"]:
        """Apply the block."""
        around = field if self.shortcut is None else self.pool(self.shortcut(field))
        inside = self.second(functional.relu(self.pool(self.first(field))))
        return functional.relu(inside + around)


class ResNet34(nn.Module):
    """The plain residual network of the CATH experiment: 15,878,764 parameters for ten classes.

    A stem of 7 voxels, stages of 3, 4, 6 and 3 blocks with 32, 64, 128 and 256 channels; mean over space, linear.

    Parameters
    ----------
    classes, channels_in
        Number of logits, channels of the input.
    width
        Channels of the first stage.
    dropout
        Chance of a whole channel to be dropped after each convolution.
    """

    def __init__(self, classes: int = 10, channels_in: int = 1, width: int = 32, dropout: float = 0.01) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.BatchNorm3d(channels_in), nn.Conv3d(channels_in, width, 7, padding=3, bias=False), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        counts: Sequence[int] = (3, 4, 6, 3)
        before = width
        for stage, count in enumerate(counts):
            after = width * 2**stage
            for number in range(count):
                blocks.append(PlainResidual3d(before, after, stride=2 if stage and not number else 1, dropout=dropout))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(before, classes)
        with torch.no_grad():
            for layer in self.modules():
                if isinstance(layer, nn.Conv3d):
                    nn.init.xavier_normal_(layer.weight)

    def forward(self, volume: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        field: Tensor = self.blocks(self.stem(volume))
        logits: Tensor = self.head(field.mean(dim=(2, 3, 4)))
        return logits


class ResNet34Small(ResNet34):
    """The same a quarter as wide: 996,388 parameters for ten classes.

    Parameters
    ----------
    classes, channels_in, dropout
        As for :class:`ResNet34`.
    """

    def __init__(self, classes: int = 10, channels_in: int = 1, dropout: float = 0.01) -> None:
        super().__init__(classes, channels_in, 8, dropout)

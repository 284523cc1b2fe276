"""The steerable classifiers without shortcuts: Tetris and SHREC17 (steerable.md 5.1, 5.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from equivox.geometry.irreps import Irreps
from equivox.nn.lowpass import LowPass3d
from equivox.nn.residual import GatedConv3d

ENTRY_SCALE = 2.0
"""Of the Gaussian low-pass that every published network of this kind begins with."""


def so3_fields(multiplicities: Sequence[int]) -> Irreps:
    """Layout of SO(3) with so many fields of degree 0, 1, 2 ...; zeros leave a degree out."""
    return Irreps(" + ".join(f"{count}x{degree}" for degree, count in enumerate(multiplicities) if count))


class TetrisNet(nn.Module):
    """The steerable network of the Tetris experiment: 41,198 parameters for eight classes.

    Low-pass of scale 2; fields (4, 4, 4, 1), (16, 16, 16), (32, 16, 16) of degree 0, 1, 2, 3, then 128 scalars; kernels
    of 5 voxels with 4 of padding, strides 1, 2, 2, 1; mean over space, dropout 0.2, linear.

    Parameters
    ----------
    classes
        Number of logits.
    channels_in
        Scalar channels of the input.
    smooth_stride
        Low-pass before every subsampling (published as decisive); ``False``: strided convolutions.
    """

    def __init__(self, classes: int = 8, channels_in: int = 1, smooth_stride: bool = True) -> None:
        super().__init__()
        widths = ((channels_in,), (4, 4, 4, 1), (16, 16, 16), (32, 16, 16), (128,))
        layouts = [so3_fields(width) for width in widths]
        kind: Literal["lowpass", "plain"] = "lowpass" if smooth_stride else "plain"
        self.entry = LowPass3d(ENTRY_SCALE)
        self.blocks = nn.Sequential(
            *(
                GatedConv3d(before, after, 5, padding=4, stride=stride, subsample=kind, grid="any")
                for before, after, stride in zip(layouts[:-1], layouts[1:], (1, 2, 2, 1), strict=True)
            )
        )
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(128, classes)

    def forward(self, volume: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        field: Tensor = self.blocks(self.entry(volume))
        logits: Tensor = self.head(self.dropout(field.mean(dim=(2, 3, 4))))
        return logits


class Shrec17Net(nn.Module):
    """The steerable network of the SHREC17 experiment: 142,617 parameters for 55 classes.

    Low-pass of scale 2; eight gated blocks with the norm on their inputs, kernels of 5 voxels with 4 of padding, plain
    strides of 2 in blocks 1, 3, 5 and 7, 512 scalars at the end; mean over space, linear.

    Parameters
    ----------
    classes, channels_in
        As for :class:`TetrisNet`.
    smooth_stride
        Low-pass before every subsampling; the article's state has none.
    """

    def __init__(self, classes: int = 55, channels_in: int = 1, smooth_stride: bool = False) -> None:
        super().__init__()
        widths = ((8, 4, 2),) * 2 + ((16, 8, 4),) * 2 + ((32, 16, 8),) * 3 + ((512,),)
        layouts = [so3_fields(width) for width in ((channels_in,), *widths)]
        kind: Literal["lowpass", "plain"] = "lowpass" if smooth_stride else "plain"
        self.entry = LowPass3d(ENTRY_SCALE)
        self.blocks = nn.Sequential(
            *(
                GatedConv3d(
                    layouts[number],
                    layouts[number + 1],
                    5,
                    padding=4,
                    stride=2 - number % 2,
                    subsample=kind,
                    grid="any",
                    norm="input",
                    momentum=0.1,
                )
                for number in range(8)
            )
        )
        self.head = nn.Linear(512, classes)

    def forward(self, volume: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        field: Tensor = self.blocks(self.entry(volume))
        logits: Tensor = self.head(field.mean(dim=(2, 3, 4)))
        return logits

"""The rotation network for fetal heads: small, O(3)-equivariant, with an attention-weighted read-out.

Three levels of steerable convolutions on Gaussian shells; the mean over 2^3 voxels between levels. The head's sagittal
plane is a mirror plane, so its left-right axis is read as a pseudovector (1e), the other two as vectors (1o).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irreps
from equivox.kernels.radial import GaussianShells
from equivox.nn.conv3d import SteerableConv3d
from equivox.nn.gate import Gate
from equivox.nn.norm import FieldInstanceNorm

READ_OUT = "1x0e + 1x1e + 2x1o"
Kernels = Literal["shells", "matched"]
SHELLS = GaussianShells(radii=(0.0, 1.0, 2.0), sigma=0.6, band_limits=(0, 3, 4), ball_radius=2.5)


class HeadPoseNet(nn.Module):
    """Crops of heads to (pseudovector, vector, vector): the head's x, y, z axes in the crop.

    Parameters
    ----------
    channels_in
        Scalar input channels.
    side
        Voxels along the crop's edge, a multiple of 4.
    widths
        Size of each level; a level of width ``n`` carries ``8n x0e + 4n x0o + 4n x1e + 4n x1o + 2n x2e + 2n x2o``.
        Below width 1 (meant for the first level, where a scalar input reaches no other) only natural parities.
    depths
        Convolutions per level.
    kernels
        ``"shells"``: Gaussian shells sampled at the taps, on 81 taps, filters up to degree 4. ``"matched"``: the
        moment-matched basis on the same ball, filters up to degree 3.
    generator
        Source of the initial weights.

    Notes
    -----
    Fields are multiplied by a soft ball after every level, so the domain itself is round. Rotations by quarter turns
    and reflections commute exactly; others up to sampling.
    """

    def __init__(
        self,
        channels_in: int = 2,
        side: int = 32,
        widths: Sequence[float] = (0.5, 1.0, 1.0),
        depths: Sequence[int] = (1, 1, 2),
        *,
        kernels: Kernels = "shells",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if side % 4 or len(widths) != 3 or len(depths) != 3:
            raise ConfigError(
                f"HeadPoseNet needs a side divisible by 4 and three widths and depths; got side {side}, "
                f"widths {tuple(widths)}, depths {tuple(depths)}."
            )
        self.side = side
        levels: list[nn.ModuleList] = []
        before = f"{channels_in}x0e"
        for width, depth in zip(widths, depths, strict=True):
            level = nn.ModuleList()
            for _ in range(depth):
                block = _Block(before, width, kernels, generator)
                before = str(block.gate.irreps_out)
                level.append(block)
            levels.append(level)
        self.levels = nn.ModuleList(levels)
        self.read_out = _convolution(before, READ_OUT, kernels, generator)

    def forward(self, crops: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch 9"]:
        """Axes, unnormalised: components (x, y, z) of the pseudovector and of the two vectors."""
        field = crops
        for number, level in enumerate(self.levels):
            ball = soft_ball(field.shape[-1]).to(field)
            for block in cast(nn.ModuleList, level):
                field = block(field) * ball
            if number + 1 < len(self.levels):
                field = functional.avg_pool3d(field, 2)
        out = self.read_out(field).flatten(2)
        weight = torch.softmax(out[:, 0] + soft_ball(field.shape[-1]).to(out).clamp_min(1e-6).log().flatten(), dim=-1)
        return torch.einsum("ncp,np->nc", out[:, 1:], weight)


class _Block(nn.Module):
    """Convolution, instance norm, gate."""

    def __init__(self, before: str, width: float, kernels: Kernels, generator: torch.Generator | None) -> None:
        super().__init__()
        eight, four, two = (max(round(n * width), 1) for n in (8, 4, 2))
        if width < 1:
            self.gate = Gate(f"{eight}x0e", f"{four}x1o + {two}x2e")
        else:
            self.gate = Gate(f"{eight}x0e + {four}x0o", f"{four}x1e + {four}x1o + {two}x2e + {two}x2o")
        self.conv = _convolution(before, self.gate.irreps_in, kernels, generator)
        self.norm = FieldInstanceNorm(self.gate.irreps_in)

    def forward(self, field: Tensor) -> Tensor:
        """Apply."""
        return self.gate(self.norm(self.conv(field)))


def _convolution(
    before: str, after: str | Irreps, kernels: Kernels, generator: torch.Generator | None
) -> SteerableConv3d:
    """One convolution of the network."""
    if kernels == "matched":
        return SteerableConv3d(before, after, 5, basis="matched", normalization="unit", generator=generator)
    return SteerableConv3d(before, after, 5, radial=SHELLS, normalization="unit", generator=generator)


def soft_ball(side: int) -> Float[Tensor, "x y z"]:
    """1 inside the ball that touches the cube's faces, falling to 0 within the outermost voxel."""
    axis = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
    radius = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2).sqrt()
    return (side / 2 - radius).clamp(0.0, 1.0)

"""An equivariant U-Net: from a volume to fields on the same grid, for voxels of any size in mm.

The layout follows e3nn's U-Net (steerable.md 4.2); what went wrong there is mended (4.3): pooling looks at every sample
of a batch by itself and filters before it subsamples, coarse and fine grids share their centre for sides of any length,
so nothing is padded and skips meet what was upsampled, and neighbours carry as much of a kernel as the centre does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irreps, IrrepsLike
from equivox.kernels.taps import edges_mm
from equivox.nn.centered import CenteredPool3d, CenteredUpsample3d
from equivox.nn.conv3d import SteerableConv3d
from equivox.nn.dropout import FieldDropout
from equivox.nn.gate import Gate
from equivox.nn.linear import FieldLinear
from equivox.nn.norm import FieldBatchNorm, FieldGroupNorm, FieldInstanceNorm

Symmetry = Literal["O3", "SO3"]
NormName = Literal["instance", "batch", "group"]
Triple = tuple[int, int, int]
Steps = tuple[float, float, float]


class EquivariantBlock(nn.Module):
    """Two times: steerable convolution, norm, gate, dropout of fields.

    Parameters
    ----------
    irreps_in
        Fields before.
    copies
        The output has ``4 n`` scalars, ``2 n`` vectors and ``n`` fields of degree 2; in O(3) of either parity.
    kernel_size, voxel_size_mm, symmetry, norm, dropout, generator
        See :class:`EquivariantUNet`.
    """

    def __init__(
        self,
        irreps_in: Irreps,
        copies: int,
        *,
        kernel_size: int,
        voxel_size_mm: Steps,
        symmetry: Symmetry,
        norm: NormName,
        dropout: float,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = irreps_in
        for _ in range(2):
            gate = _make_gate(copies, symmetry)
            kind = {"instance": FieldInstanceNorm, "batch": FieldBatchNorm, "group": FieldGroupNorm}[norm]
            layers += [
                SteerableConv3d(
                    before,
                    gate.irreps_in,
                    kernel_size,
                    voxel_size_mm=voxel_size_mm,
                    lmax=2,
                    normalization="unit",
                    generator=generator,
                ),
                kind(gate.irreps_in),
                gate,
            ]
            if dropout:
                layers.append(FieldDropout(gate.irreps_out, dropout))
            before = gate.irreps_out
        self.layers = nn.Sequential(*layers)
        self.irreps_out = before

    def forward(self, field: Float[Tensor, "batch channel_in x y z"]) -> Float[Tensor, "batch channel_out x y z"]:
        """Apply; the grid keeps its size."""
        result: Tensor = self.layers(field)
        return result


class EquivariantUNet(nn.Module):
    """Encoder and decoder of steerable convolutions with skip connections.

    Level ``i`` has ``copies * 2^i`` times the fields of :class:`EquivariantBlock`. Between levels axes are pooled by 2,
    in mm: an axis whose voxels are thick is not pooled until the others catch up (:func:`pooling_strides`). Volumes of
    any sides come in; the output has the same grid.

    Parameters
    ----------
    irreps_in, irreps_out
        Fields of input and output, for example ``"1x0e"`` and ``"3x0e + 1x1o"``.
    poolings
        How often the grid is made coarser.
    copies
        ``n`` of the finest level.
    kernel_size
        Kernel diameter in voxels of the finest axis of a level; the same length in mm along the others.
    voxel_size_mm
        Of the input, one number or (x, y, z): rotations are those of physical space.
    symmetry
        ``"O3"``: rotations and mirrors. ``"SO3"``: rotations only; irreps without letters.
    norm
        ``"instance"``, ``"group"`` or ``"batch"``.
    dropout
        Of whole fields, after every gate.
    generator
        Source of the initial weights.

    Raises
    ------
    ConfigError
        If a size is out of range, or the layouts are not of the symmetry's group.

    Examples
    --------
    >>> network = EquivariantUNet("1x0e", "2x0e + 1x1o", poolings=1, copies=1, kernel_size=3)
    >>> network(torch.zeros(1, 1, 9, 8, 7)).shape
    torch.Size([1, 5, 9, 8, 7])
    """

    def __init__(
        self,
        irreps_in: IrrepsLike = "1x0e",
        irreps_out: IrrepsLike = "2x0e",
        *,
        poolings: int = 2,
        copies: int = 2,
        kernel_size: int = 5,
        voxel_size_mm: float | Sequence[float | int] = 1.0,
        symmetry: Symmetry = "O3",
        norm: NormName = "instance",
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = Irreps(irreps_in), Irreps(irreps_out)
        if min(poolings, copies - 1, kernel_size - 3) < 0 or kernel_size % 2 == 0:
            raise ConfigError(
                f"an EquivariantUNet needs poolings >= 0, copies >= 1 and an odd kernel_size >= 3; got {poolings}, "
                f"{copies} and {kernel_size}."
            )
        for name, value, known in (
            ("symmetry", symmetry, ("O3", "SO3")),
            ("norm", norm, ("instance", "group", "batch")),
        ):
            if value not in known:
                raise ConfigError(f"{name} is one of {', '.join(known)}; got {value!r}.")
        for layout in (self.irreps_in, self.irreps_out):
            if layout.is_so3 != (symmetry == "SO3"):
                letters = "without letters" if symmetry == "SO3" else "with e or o"
                raise ConfigError(f"symmetry {symmetry!r} takes irreps {letters}; got {layout}.")
        steps: Steps = edges_mm(voxel_size_mm)
        self.strides = pooling_strides(steps, poolings)
        levels = [steps]
        for stride in self.strides:
            x, y, z = (step * factor for step, factor in zip(levels[-1], stride, strict=True))
            levels.append((x, y, z))
        self.voxel_sizes_mm = tuple(levels)

        def block(before: Irreps, level: int) -> EquivariantBlock:
            return EquivariantBlock(
                before, copies * 2**level, kernel_size=kernel_size, voxel_size_mm=levels[level], symmetry=symmetry,
                norm=norm, dropout=dropout, generator=generator,
            )  # fmt: skip

        before = self.irreps_in
        self.encoder = nn.ModuleList()
        self.pools = nn.ModuleList()
        skips: list[Irreps] = []
        for level in range(poolings + 1):
            if level:
                self.pools.append(CenteredPool3d(self.strides[level - 1], voxel_size_mm=levels[level - 1]))
            encoded = block(before, level)
            self.encoder.append(encoded)
            before = encoded.irreps_out
            skips.append(before)
        self.upsamplers = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for level in reversed(range(poolings)):
            self.upsamplers.append(CenteredUpsample3d(self.strides[level], voxel_size_mm=levels[level]))
            decoded = block(skips[level] + before, level)
            self.decoder.append(decoded)
            before = decoded.irreps_out
        self.head = FieldLinear(before, self.irreps_out, bias=True, generator=generator)

    def forward(self, volume: Float[Tensor, "batch channel_in x y z"]) -> Float[Tensor, "batch channel_out x y z"]:
        """Fields on the grid of the input."""
        field: Tensor = volume
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            if level:
                skips.append(field)
                field = self.pools[level - 1](field)
            field = block(field)
        for upsample, block in zip(self.upsamplers, self.decoder, strict=True):
            skip = skips.pop()
            field = block(torch.cat([skip, upsample(field, skip.shape[2:])], dim=1))
        result: Tensor = self.head(field)
        return result


def pooling_strides(voxel_size_mm: Steps, poolings: int) -> tuple[Triple, ...]:
    """Strides along x, y and z of every pooling: 2, or 1 for an axis whose voxels are thick.

    Pooling number ``k`` aims at ``2^k`` times the finest edge; an axis is pooled where that brings it nearer to the aim
    (in ratio), else it waits for the others.

    Examples
    --------
    >>> pooling_strides((1.0, 1.0, 3.0), 3)
    ((2, 2, 1), (2, 2, 1), (2, 2, 2))
    """
    steps, aim = voxel_size_mm, min(voxel_size_mm)
    strides: list[Triple] = []
    for _ in range(poolings):
        aim *= 2.0
        x, y, z = (2 if step * 2**0.5 < aim else 1 for step in steps)
        strides.append((x, y, z))
        steps = (steps[0] * x, steps[1] * y, steps[2] * z)
    return tuple(strides)


def _make_gate(copies: int, symmetry: Symmetry) -> Gate:
    """``4 n`` scalars, ``2 n`` vectors, ``n`` of degree 2; in O(3) of each parity."""
    n = copies
    if symmetry == "SO3":
        return Gate(f"{4 * n}x0", f"{2 * n}x1 + {n}x2", even="silu")
    return Gate(f"{4 * n}x0e + {4 * n}x0o", f"{2 * n}x1e + {2 * n}x1o + {n}x2e + {n}x2o", even="silu")

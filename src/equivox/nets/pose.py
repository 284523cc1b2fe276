"""The E(3)-CNN of E(3)-Pose: from a crop around a head to three axes that turn with it."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from equivox.geometry.irreps import Irreps
from equivox.kernels.radial import SmoothFinite
from equivox.nets.object_symmetry import ObjectSymmetry, output_irreps, pool_field, read_field
from equivox.nets.readout import ReadOut
from equivox.nn.activations import Constants
from equivox.nn.conv3d import SteerableConv3d
from equivox.nn.gate import Gate
from equivox.nn.norm import FieldInstanceNorm
from equivox.nn.pool import NormMaxPool3d

Symmetry = Literal["O3", "SO3"]
FILTER_DEGREE = 4
"""Highest degree of a filter's harmonics, as published."""


class Stage(nn.Module):
    """Steerable convolution, norm per field, gate.

    Parameters
    ----------
    irreps_in
        Fields before.
    scalars, gated
        Fields after: scalars, then those that a gate scales.
    kernel_size
        Kernel diameter in voxels, and number of radial functions.
    gate_constants
        See :class:`equivox.nn.gate.Gate`.
    """

    def __init__(
        self, irreps_in: Irreps, scalars: Irreps, gated: Irreps, *, kernel_size: int, gate_constants: Constants
    ) -> None:
        super().__init__()
        self.gate = Gate(scalars, gated, constants=gate_constants)
        self.irreps_out = self.gate.irreps_out
        self.convolution = published_convolution(irreps_in, self.gate.irreps_in, kernel_size)
        self.norm = FieldInstanceNorm(self.gate.irreps_in)

    def forward(self, field: Float[Tensor, "batch channel_in x y z"]) -> Float[Tensor, "batch channel_out x y z"]:
        """Apply the stage; the grid keeps its size."""
        return self.gate(self.norm(self.convolution(field)))


class Block(nn.Module):
    """Two stages at one resolution.

    Parameters
    ----------
    irreps_in
        Fields before.
    copies
        ``n`` of this level: the output holds ``8 n`` scalars, ``4 n`` vectors and ``2 n`` fields of degree 2, half of
        each parity.
    symmetry, kernel_size, gate_constants
        See :class:`PoseNet`.
    """

    def __init__(
        self, irreps_in: Irreps, copies: int, *, symmetry: Symmetry, kernel_size: int, gate_constants: Constants
    ) -> None:
        super().__init__()
        scalars, gated = hidden_fields(copies, symmetry)
        self.first = Stage(irreps_in, scalars, gated, kernel_size=kernel_size, gate_constants=gate_constants)
        self.second = Stage(
            self.first.irreps_out, scalars, gated, kernel_size=kernel_size, gate_constants=gate_constants
        )
        self.irreps_out = self.second.irreps_out

    def forward(self, field: Float[Tensor, "batch channel_in x y z"]) -> Float[Tensor, "batch channel_out x y z"]:
        """Apply both stages."""
        return self.second(self.first(field))


class PoseNet(nn.Module):
    """Rotation-equivariant network with one pseudovector and two vectors per coarse voxel.

    At the defaults it is the published E(3)-CNN (1,984,806 parameters). Turn the input and the output turns; mirror it
    and the vectors are mirrored while the pseudovector keeps the sense that handedness gives it.

    Parameters
    ----------
    poolings
        Poolings by two; there is one more resolution level. Every side of the input must be at least
        ``2**poolings``; a multiple of it keeps the cube's symmetries exact.
    kernel_size
        Kernel diameter in voxels, and number of radial functions; an even size has one tap more.
    multiplier
        ``n`` of the finest level (see :class:`Block`); it doubles at every level.
    symmetry
        ``"O3"``: rotations and mirrors, as published. ``"SO3"``: rotations only; parity is dropped everywhere, so
        every filter is used (the published SO(3) mode kept odd filters and lost half of them).
    odd_scalars
        Pooling of scalars that change sign in a mirror: ``"absolute"`` keeps the symmetry; ``"signed"`` is the
        published way, for networks that were trained with it.
    gate_constants
        ``"exact"``, or ``"published"`` for networks that were trained with e3nn's Monte-Carlo values.
    object_symmetry
        What the object looks like to itself: decides the output's fields and how they are read; see
        :mod:`equivox.nets.object_symmetry`. ``"mirror"`` is the published head.

    Raises
    ------
    ValueError
        If a size is not positive, or in ``forward`` if a side is shorter than ``2**poolings``.

    References
    ----------
    .. [1] Muthukrishnan et al., "Equivariant Symmetry-Aware Head Pose Estimation for Fetal MRI", arXiv 2512.04890.

    Examples
    --------
    >>> net = PoseNet(poolings=1, kernel_size=3).eval()
    >>> net(torch.zeros(1, 1, 8, 8, 8)).shape
    torch.Size([1, 9, 4, 4, 4])
    """

    def __init__(
        self,
        poolings: int = 4,
        kernel_size: int = 5,
        multiplier: int = 2,
        *,
        symmetry: Symmetry = "O3",
        odd_scalars: Literal["absolute", "signed"] = "absolute",
        gate_constants: Literal["exact", "published"] = "exact",
        object_symmetry: ObjectSymmetry = "mirror",
    ) -> None:
        super().__init__()
        if object_symmetry not in ("mirror", "c2", "none"):
            raise ValueError(f"object_symmetry must be 'mirror', 'c2' or 'none', got {object_symmetry!r}")
        if poolings < 0 or kernel_size < 2 or multiplier < 1:
            raise ValueError(
                f"a PoseNet needs poolings >= 0, kernel_size >= 2 and multiplier >= 1, got {poolings}, {kernel_size} "
                f"and {multiplier}"
            )
        if symmetry not in ("O3", "SO3"):
            raise ValueError(f"symmetry must be 'O3' or 'SO3', got {symmetry!r}")
        if odd_scalars not in ("absolute", "signed"):
            raise ValueError(f"odd_scalars must be 'absolute' or 'signed', got {odd_scalars!r}")
        self.poolings = poolings
        self.object_symmetry: ObjectSymmetry = object_symmetry
        irreps = Irreps("1x0e" if symmetry == "O3" else "1x0")
        self.blocks = nn.ModuleList()
        self.pools = nn.ModuleList()
        for level in range(poolings + 1):
            if level:
                self.pools.append(NormMaxPool3d(irreps, 2, odd_scalars=odd_scalars, grid="any"))
            block = Block(
                irreps,
                multiplier * 2**level,
                symmetry=symmetry,
                kernel_size=kernel_size,
                gate_constants=gate_constants,
            )
            self.blocks.append(block)
            irreps = block.irreps_out
        self.irreps_out = output_irreps(object_symmetry, symmetry)
        self.output = published_convolution(irreps, self.irreps_out, kernel_size)

    def forward(self, image: Float[Tensor, "batch 1 x y z"]) -> Float[Tensor, "batch channel x2 y2 z2"]:
        """Nine channels per coarse voxel: pseudovector, vector, vector, each (x, y, z) in array axes; for an object of
        symmetry ``c2`` eight: a vector and a tensor of degree 2.
        """
        least = 2**self.poolings
        if min(image.shape[2:]) < least:
            raise ValueError(
                f"{self.poolings} poolings need at least {least} voxels per side, got {tuple(image.shape[2:])}"
            )
        field = self.blocks[0](image)
        for pool, block in zip(self.pools, self.blocks[1:], strict=True):
            field = block(pool(field))
        return self.output(field)

    def axes(self, image: Float[Tensor, "batch 1 x y z"]) -> Float[Tensor, "batch channel"]:
        """The fields of each item, pooled over space."""
        return pool_field(self(image), self.object_symmetry)

    def read(self, image: Float[Tensor, "batch 1 x y z"]) -> ReadOut:
        """Rotations from canonical to image coordinates, one per item, with their quality."""
        return read_field(self(image), self.object_symmetry)


def hidden_fields(copies: int, symmetry: Symmetry) -> tuple[Irreps, Irreps]:
    """Scalars and gated fields of a level of the E(3)-CNN."""
    n = copies
    if symmetry == "O3":
        return (
            Irreps(f"{4 * n}x0e + {4 * n}x0o"),
            Irreps(f"{2 * n}x1e + {2 * n}x1o + {n}x2e + {n}x2o"),
        )
    return Irreps(f"{8 * n}x0"), Irreps(f"{4 * n}x1 + {2 * n}x2")


def published_convolution(irreps_in: Irreps, irreps_out: Irreps, kernel_size: int) -> SteerableConv3d:
    """The published kernel: ``kernel_size`` bumps on half a diameter, filters up to degree 4, self-connection.

    The same in voxels at every level, since steps and diameters double together.
    """
    return SteerableConv3d(
        irreps_in,
        irreps_out,
        2 * (kernel_size // 2) + 1,
        radial=SmoothFinite(count=kernel_size, start=0.0, end=kernel_size / 2),
        lmax=FILTER_DEGREE,
        self_connection=True,
    )

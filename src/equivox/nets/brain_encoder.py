"""The encoder of brain MRI whose latent turns with the head, by construction (soe section 4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irreps
from equivox.nets.brain_code import BrainCode
from equivox.nets.brain_contrast import BrainContrast
from equivox.nets.brain_encoders import build_encoder
from equivox.nets.brain_head import BrainHead
from equivox.nets.brain_pooling import TissueDepthHistogram, landmark_moments, mean_products, mean_vectors
from equivox.nn.binomial_pool import BinomialPool3d
from equivox.nn.conv3d import SteerableConv3d
from equivox.nn.gate import Gate
from equivox.nn.masked import MaskedFieldNorm, precise_mean, precise_sum, soft_ball_mask

__all__ = ["BrainEncoder", "build_encoder"]

Fields = Sequence[Sequence[int]]
FIELDS: tuple[tuple[int, int, int], ...] = ((8, 4, 0), (16, 8, 4), (32, 16, 8))
"""Scalars, polar and axial vectors of each level."""
POOLINGS = 2
"""Halvings of the grid: after the first and the second level."""
INSIDE = 1.0
"""About what both channels that the first level reads (contrast and mask) are in a brain."""
LANDMARK_UNIT_MM = 10.0
"""Moments are given in this unit, so that they are about as large as everything else."""


class BrainEncoder(nn.Module):
    """From a brain and its mask to polar and axial vectors, invariants and pseudo-scalars.

    Contrast without shading (:class:`equivox.nets.brain_contrast.BrainContrast`), steerable convolutions on matched
    bases with norms over the brain and gates, two binomial halvings, then moments, mean vectors, products and
    statistics of every level. Exact for the 48 symmetries of the cube; at other angles as far as the grid allows.

    Parameters
    ----------
    side
        Voxels of the cube, a multiple of 4.
    voxel_size_mm
        Edge of a voxel. 3.3 mm at 64 voxels holds every adult brain in the ball; 3.0 mm clips.
    fields
        Per level the numbers of scalars, polar and axial vectors.
    kernel_sizes
        Per level 3, 5 or 7.
    trend
        Degree of the polynomial trend that is taken out of log intensities; -1 for the intensities themselves.
    polar, axial, scalars, pseudoscalars
        Sizes of the code.
    histogram_layers
        Layers of depth of which the histogram of tone is read, 0 the outermost of 5; see
        :class:`equivox.nets.brain_pooling.TissueDepthHistogram`.
    generator
        Source of the first weights; default: torch's own.

    Raises
    ------
    ConfigError
        If sizes do not fit.

    Examples
    --------
    >>> encoder = BrainEncoder(16, 13.2).eval()
    >>> brain = torch.rand(2, 1, 16, 16, 16)
    >>> code = encoder(brain, (brain > 0).float())
    >>> code.polar.shape, code.scalars.shape
    (torch.Size([2, 64, 3]), torch.Size([2, 256]))
    """

    ball: Tensor

    def __init__(
        self,
        side: int = 64,
        voxel_size_mm: float = 3.3,
        *,
        fields: Fields = FIELDS,
        kernel_sizes: Sequence[int] = (5, 5, 5),
        trend: int = 2,
        polar: int = 64,
        axial: int = 32,
        scalars: int = 256,
        pseudoscalars: int = 16,
        histogram_layers: Sequence[int] = (0, 1, 2, 3, 4),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _require_sizes(side, voxel_size_mm, fields, kernel_sizes)
        self.side, self.voxel_size_mm = side, voxel_size_mm
        self.sizes = {"polar": polar, "axial": axial, "scalars": scalars, "pseudoscalars": pseudoscalars}
        self.register_buffer("ball", soft_ball_mask(side), persistent=False)
        self.contrast = BrainContrast(side, trend)
        self.histogram = TissueDepthHistogram(side, voxel_size_mm=voxel_size_mm, layers=histogram_layers)
        before = Irreps("2x0e")
        levels: list[_Level] = []
        for multiplicities, size in zip(fields, kernel_sizes, strict=True):
            level = _Level(before, multiplicities, size, generator, base=0.0 if levels else INSIDE)
            before = level.gate.irreps_out
            levels.append(level)
        self.levels = nn.ModuleList(levels)
        self.irreps_last = before
        self.pool = BinomialPool3d(8)
        landmarks = sum(level.landmarks for level in levels)
        vectors = sum(level.polar for level in levels)
        statistics = sum(level.scalars + 2 * level.polar + level.axial for level in levels)
        self.head = BrainHead(
            landmarks + vectors,
            vectors,
            statistics + self.histogram.count + 1,
            polar=polar,
            axial=axial,
            scalars=scalars,
            pseudoscalars=pseudoscalars,
            generator=generator,
        )

    def fields(
        self, volume: Float[Tensor, "batch 1 x y z"], mask: Float[Tensor, "batch 1 x y z"]
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Per level the normalised field before the gate, the field after it, and the mask of that level."""
        inside = mask.to(self.ball.dtype) * self.ball
        contrast = self.contrast(volume * self.ball, inside)
        return self._levels(torch.cat([contrast, inside], dim=1), inside)

    def pooled(
        self, volume: Float[Tensor, "batch 1 x y z"], mask: Float[Tensor, "batch 1 x y z"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the head reads: polar vectors, axial vectors, statistics."""
        self._require_grid(volume)
        inside = mask.to(self.ball.dtype) * self.ball
        contrast = self.contrast(volume * self.ball, inside)
        found = self._levels(torch.cat([contrast, inside], dim=1), inside)
        landmarks, vectors, axial, statistics = [], [], [], []
        for number, (level, (scores, field, here)) in enumerate(zip(self.levels, found, strict=True)):
            assert isinstance(level, _Level)
            scores, field = scores.to(here.dtype), field.to(here.dtype)
            voxel = self.voxel_size_mm * 2 ** min(number, POOLINGS)
            landmarks.append(landmark_moments(scores[:, : level.landmarks], here, voxel) / LANDMARK_UNIT_MM)
            statistics.append(precise_mean(field[:, : level.scalars], here))
            polar = field[:, level.scalars : level.scalars + 3 * level.polar]
            crossed, own, mixed = mean_products(polar, here)
            vectors.append(mean_vectors(polar, here))
            axial.append(crossed)
            statistics += [own, mixed]
            if level.axial:
                twisted = field[:, level.scalars + 3 * level.polar :].unflatten(1, (-1, 3))
                statistics.append(precise_mean(twisted.square().sum(2), here))
        volume_ml = precise_sum(inside) * self.voxel_size_mm**3 / 1000.0
        statistics += [self.histogram(contrast, inside), torch.log(volume_ml.clamp_min(1.0) / 1500.0)]
        return torch.cat([*landmarks, *vectors], dim=1), torch.cat(axial, dim=1), torch.cat(statistics, dim=1)

    def forward(self, volume: Float[Tensor, "batch 1 x y z"], mask: Float[Tensor, "batch 1 x y z"]) -> BrainCode:
        """Encode brains: intensities about 1 inside, 0 outside; mask 1 inside, 0 outside; centred at (side - 1) / 2."""
        code: BrainCode = self.head(*self.pooled(volume, mask))
        return code

    def settle(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Standardise the invariants of the head over some brains, pairs of volumes and masks."""
        with torch.no_grad():
            raw = []
            for volume, mask in batches:
                polar, _, statistics = self.pooled(volume, mask)
                raw.append(self.head.statistics(polar, statistics))
            self.head.settle(raw)

    def _levels(self, field: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        found = []
        for number, level in enumerate(self.levels):
            if 0 < number <= POOLINGS:
                field, mask = self.pool(field), self.pool(mask)
            scores, field = level(field, mask)
            found.append((scores, field, mask))
        return found

    def _require_grid(self, volume: Tensor) -> None:
        if tuple(volume.shape[2:]) != (self.side,) * 3:
            raise ValueError(f"this encoder takes cubes of {self.side} voxels a side, got {tuple(volume.shape)}.")


class _Level(nn.Module):
    """Convolution, norm over the brain, gate, mask.

    ``base`` is taken from the field, and from the zeros beyond the grid, before the convolution. A constant makes
    nothing but a constant in scalars, which the norm takes out; left in, float32 would round the sum over the taps of a
    uniform region to the same wrong number in every voxel of it, and to another one in a turned brain.
    """

    def __init__(
        self,
        before: Irreps,
        multiplicities: Sequence[int],
        size: int,
        generator: torch.Generator | None,
        *,
        base: float = 0.0,
    ) -> None:
        super().__init__()
        self.scalars, self.polar, self.axial = multiplicities
        gated = [f"{count}x{name}" for count, name in ((self.polar, "1o"), (self.axial, "1e")) if count]
        self.gate = Gate(f"{self.scalars}x0e", "+".join(gated), even="silu")
        self.landmarks = self.scalars + self.polar + self.axial
        self.base, self.reach = base, size // 2
        self.conv = SteerableConv3d(
            before, self.gate.irreps_in, size, lmax=2, padding=0 if base else "same", generator=generator
        )
        self.norm = MaskedFieldNorm(self.gate.irreps_in)

    def forward(self, field: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The normalised field, and what comes out; its channels are scalars, polar, axial."""
        if self.base:
            field = functional.pad(field - self.base, [self.reach] * 6, value=-self.base)
        scores = self.norm(self.conv(field), mask)
        return scores, self.gate(scores) * mask


def _require_sizes(side: int, voxel_size_mm: float, fields: Fields, kernel_sizes: Sequence[int]) -> None:
    """Refuse what cannot be built."""
    if side < 8 or side % 2**POOLINGS:
        raise ConfigError(f"side is {side} voxels; the grid is halved twice: give a multiple of 4, at least 8.")
    if not voxel_size_mm > 0:
        raise ConfigError(f"voxel_size_mm is {voxel_size_mm}; give a number above 0.")
    if not fields or len(fields) != len(kernel_sizes):
        raise ConfigError(f"fields name {len(fields)} levels and kernel_sizes {len(kernel_sizes)}; give as many.")
    for level in fields:
        if len(level) != 3 or level[0] < 1 or level[1] < 2 or level[2] < 0:
            raise ConfigError(f"a level has at least 1 scalar, 2 polar and 0 axial vectors; got {list(level)}.")
    if any(size not in (3, 5, 7) for size in kernel_sizes):
        raise ConfigError(f"kernel sizes are 3, 5 or 7; got {list(kernel_sizes)}.")

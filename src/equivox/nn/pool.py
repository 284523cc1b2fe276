"""Pooling that keeps equivariance, for any batch size: by norm, by average, and over the whole of space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irreps, IrrepsLike
from equivox.nn.grids import GridRule, Triple, require_symmetric_grid, triple
from equivox.nn.layout import require_channels


class NormMaxPool3d(nn.Module):
    """Keep in each window the field of largest norm, whole.

    Even scalars are pooled by their maximum; fields of degree above 0 by the voxel of largest norm (the first in
    raster order on ties); odd scalars by largest absolute value, because the maximum of a quantity whose sign flips
    in a mirror is not equivariant.

    Parameters
    ----------
    irreps
        Channel layout.
    window
        Size and stride, one number or (x, y, z).
    odd_scalars
        ``"signed"`` pools odd scalars by their signed maximum, as the published E(3)-Pose did (for imported weights;
        it breaks mirror equivariance).
    grid
        ``"symmetric"`` takes sides that are multiples of the window; ``"any"`` drops voxels that do not fill one.

    Raises
    ------
    GridSymmetryError
        In ``forward``, if windows do not fill a side.
    """

    def __init__(
        self,
        irreps: IrrepsLike,
        window: int | Sequence[int] = 2,
        *,
        odd_scalars: Literal["absolute", "signed"] = "absolute",
        grid: GridRule = "symmetric",
    ) -> None:
        super().__init__()
        self.irreps = Irreps(irreps)
        self.window = triple(window, "pooling window")
        self.odd_scalars = odd_scalars
        self.grid: GridRule = grid

    def forward(self, field: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch channel x_out y_out z_out"]:
        """Pool; sides are divided by the window, rounded down."""
        require_channels(field, self.irreps, "NormMaxPool3d")
        if self.grid == "symmetric":
            require_symmetric_grid(field.shape[2:], self.window, (0, 0, 0), self.window, "NormMaxPool3d")
        pieces = []
        for part, (multiplicity, irrep) in zip(self.irreps.slices(), self.irreps, strict=True):
            if not multiplicity:
                continue
            block = field[:, part]
            if irrep.is_scalar or (irrep.degree == 0 and self.odd_scalars == "signed"):
                pieces.append(functional.max_pool3d(block, self.window))
                continue
            copies = block.unflatten(1, (multiplicity, irrep.dimension))
            pieces.append(_pool_by_norm(copies, self.window).flatten(1, 2))
        return torch.cat(pieces, dim=1)

    def extra_repr(self) -> str:
        """Layout and window."""
        return f"{self.irreps}, window={self.window}, odd_scalars={self.odd_scalars}"


def _pool_by_norm(copies: Tensor, window: tuple[int, int, int]) -> Tensor:
    """(batch, copy, component, x, y, z): components at the voxel of largest norm in each window."""
    with torch.no_grad():
        size = copies.square().sum(2) if copies.shape[2] > 1 else copies.squeeze(2).abs()
        pooled, index = functional.max_pool3d(size, window, return_indices=True)
    chosen = index.flatten(2).unsqueeze(2).expand(-1, -1, copies.shape[2], -1)
    return copies.flatten(3).gather(3, chosen).unflatten(3, pooled.shape[2:])


class AveragePool3d(nn.Module):
    """Mean over each window: linear, so equivariant for every layout.

    Parameters
    ----------
    window
        Size, one number or (x, y, z).
    stride
        Default: the window.
    padding
        Zeros on each side, at most half the window. They count in the mean, as in the published residual networks,
        unless ``count_padding`` is false: then a constant stays constant up to the border.
    grid
        ``"symmetric"`` refuses sides that windows meet off centre, ``"any"`` takes all.

    Raises
    ------
    GridSymmetryError
        In ``forward``, if a side is met off centre.
    """

    def __init__(
        self,
        window: int | Sequence[int] = 2,
        *,
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        count_padding: bool = True,
        grid: GridRule = "symmetric",
    ) -> None:
        super().__init__()
        self.window = triple(window, "pooling window")
        self.stride = self.window if stride is None else triple(stride, "pooling stride")
        x, y, z = (padding,) * 3 if isinstance(padding, int) else padding
        self.padding: Triple = (x, y, z)
        if min(self.padding) < 0 or any(2 * pad > size for pad, size in zip(self.padding, self.window, strict=True)):
            raise ConfigError(f"padding {padding} of a pooling window {window} must lie between 0 and half the window.")
        self.count_padding = count_padding
        self.grid: GridRule = grid

    def forward(self, field: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch channel x_out y_out z_out"]:
        """Pool."""
        if self.grid == "symmetric":
            require_symmetric_grid(field.shape[2:], self.window, self.padding, self.stride, "AveragePool3d")
        return functional.avg_pool3d(
            field, self.window, stride=self.stride, padding=self.padding, count_include_pad=self.count_padding
        )

    def extra_repr(self) -> str:
        """Window, stride, padding."""
        return f"window={self.window}, stride={self.stride}, padding={self.padding}"


class GlobalPool(nn.Module):
    """One field per sample from a whole volume.

    Parameters
    ----------
    irreps
        Channel layout.
    mode
        ``"mean"``: average. ``"max"``: even scalars by maximum, all others the field of largest norm.
        ``"direction"``: every field of degree above 0 is first scaled to length 1, then averaged (the published
        read-out of vectors, e3pose 5.10); scalars are averaged.
    """

    def __init__(self, irreps: IrrepsLike, mode: Literal["mean", "max", "direction"] = "mean") -> None:
        super().__init__()
        self.irreps = Irreps(irreps)
        self.mode: Literal["mean", "max", "direction"] = mode

    def forward(
        self,
        field: Float[Tensor, "batch channel x y z"],
        mask: Float[Tensor, "batch 1 x y z"] | None = None,
    ) -> Float[Tensor, "batch channel"]:
        """Pool over space; with a ``mask`` (weights of at least 0) only over what it holds ("mean", "direction")."""
        require_channels(field, self.irreps, "GlobalPool")
        if self.mode == "max":
            if mask is not None:
                raise ConfigError("GlobalPool in mode 'max' takes no mask; set masked voxels to 0 first.")
            size = (field.shape[2], field.shape[3], field.shape[4])
            return NormMaxPool3d(self.irreps, size, grid="any")(field).flatten(1)
        if self.mode == "direction":
            pieces = []
            for part, (multiplicity, irrep) in zip(self.irreps.slices(), self.irreps, strict=True):
                copies = field[:, part].unflatten(1, (multiplicity, irrep.dimension))
                unit = copies if irrep.degree == 0 else functional.normalize(copies, dim=2, eps=1e-12)
                pieces.append(unit.flatten(1, 2))
            field = torch.cat(pieces, dim=1)
        if mask is None:
            return field.mean(dim=(2, 3, 4))
        return (field * mask).sum(dim=(2, 3, 4)) / mask.sum(dim=(2, 3, 4)).clamp_min(1e-8)

    def extra_repr(self) -> str:
        """Layout and mode."""
        return f"{self.irreps}, mode={self.mode}"

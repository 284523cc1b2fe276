"""Convolution whose filters are projections of one rotated 3D weight (projection2d.md 2.2, 3)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.so3_grids import RotationGrid, rotation_grid
from equivox.kernels.projected import (
    Richness,
    ball_basis,
    ball_matrix,
    planar_profiles,
    profile_mixing,
    sample_ball,
)
from equivox.kernels.projected_cube import TRILINEAR_LOSS, cube_filters, square_filters, square_variance
from equivox.kernels.projected_error import in_plane_error
from equivox.nn.grouped_conv2d import grouped_conv2d
from equivox.nn.rotation_mixing import RotationMixing

WeightKind = Literal["ball", "cube", "cube_padded", "square"]
WEIGHTS: tuple[str, ...] = ("ball", "cube", "cube_padded", "square")
Evaluation = Literal["auto", "filters", "profiles"]
PROFILE_GAIN, LEAST_FILTERS = 1.5, 512
"""Profiles are taken where they save this factor of multiplications and there are so many planar filters: measured,
below that they cost up to 1.2 times, above it down to half (benchmarks/projected.py)."""


class ProjectedConv2d(nn.Module):
    """Convolution with one filter per sampled rotation, all of them images of the same weight in space.

    A *lifting* layer looks at one image with every filter; later layers keep rotations apart (a grouped convolution).
    Turning the image by a symmetry of the square permutes the rotations of a grid that is closed under it.

    Parameters
    ----------
    channels_in, channels_out
        Per rotation.
    kernel_size
        Side of the filters [px], odd.
    grid
        Sampled rotations, or the name of a grid: :func:`equivox.geometry.so3_grids.rotation_grid`.
    lifting
        Whether the input has no rotations yet: (batch, channel_in, y, x). Otherwise channels are ordered
        ``r * channels_in + c``, and group ``r`` reads and writes its own only.
    weight
        ``"ball"`` (default): shells times spherical harmonics, projected by one constant matrix, equivariant to 1 %
        at any in-plane angle. ``"cube"``: a cube of weights, rotated by trilinear interpolation (as published; 26 to
        48 % off at 45 degrees). ``"cube_padded"``: the same without corners cut off in depth. ``"square"``: a planar
        weight, turned in its plane (SO(2); the grid must be turns about z or mirrors).
    richness
        For ``"ball"``: ``"exact"`` or ``"rich"`` (:func:`equivox.kernels.projected.ball_basis`).
    stride
        In pixels. Subsampling keeps quarter turns exact where it meets the first and the last pixel.
    padding
        ``"same"`` (default; zeros, so that stride 1 keeps the size), ``"valid"`` (none) or pixels per side.
    mixing
        ``"none"``, or ``"kernel"``: rotations exchange what they found, weighted by a learned function of their
        distance (:class:`RotationMixing`).
    bias
        One number per channel, shared by all rotations.
    evaluation
        For lifting with ``"ball"``: ``"filters"`` convolves with every filter, ``"profiles"`` with the few planar
        profiles that all filters are mixed of and then mixes the maps (the same numbers); ``"auto"`` takes what is
        cheaper.
    generator
        Source of the initial weights; default: torch's own.
    dtype, device
        Of the parameters.

    Attributes
    ----------
    weight
        (channels_out, channels_in, functions), cubes (…, x, y, z), or squares (…, y, x).
    filters_made
        How often filters were computed: at every step of training, once in evaluation.

    Notes
    -----
    Filters start with the He variance ``2 / (channels_in k^2)``. With ``"ball"`` their distribution is the same for
    every rotation; cubes are 1.7 times louder where they are not interpolated.

    The convolution is PyTorch's cross-correlation: the filter of rotation ``R`` answers to an image that looks like
    the weight in pose ``R``.

    Examples
    --------
    >>> layer = ProjectedConv2d(1, 4, 9, "O", lifting=True)
    >>> layer(torch.zeros(2, 1, 45, 45)).unflatten(1, (24, 4)).shape
    torch.Size([2, 24, 4, 45, 45])
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        grid: RotationGrid | str,
        *,
        lifting: bool,
        weight: WeightKind = "ball",
        richness: Richness = "exact",
        stride: int = 1,
        padding: Literal["same", "valid"] | int = "same",
        mixing: Literal["none", "kernel"] = "none",
        bias: bool = True,
        evaluation: Evaluation = "auto",
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0 or kernel_size < 3:
            raise ConfigError(
                f"kernel size must be odd and at least 3, so that a pixel lies in the centre; got {kernel_size}."
            )
        if weight not in WEIGHTS:
            raise ConfigError(f"weight {weight!r} is unknown; known are {', '.join(WEIGHTS)}.")
        self.channels_in, self.channels_out, self.kernel_size = channels_in, channels_out, kernel_size
        self.lifting, self.stride = lifting, stride
        self.weight_kind: WeightKind = weight
        self.richness: Richness = richness
        self.evaluation: Evaluation = evaluation
        self.padding = {"same": (kernel_size - 1) // 2, "valid": 0}.get(str(padding), padding)
        shape = {"ball": (ball_basis(kernel_size, richness).dimension,), "square": (kernel_size,) * 2}
        self.weight = nn.Parameter(
            torch.empty(channels_out, channels_in, *shape.get(weight, (kernel_size,) * 3), dtype=dtype, device=device)
        )
        if bias:
            self.bias = nn.Parameter(torch.zeros(channels_out, dtype=dtype, device=device))
        else:
            self.register_parameter("bias", None)
        self.filters_made = 0
        self._kept: tuple[Tensor, RotationGrid, Tensor] | None = None
        self.mixing: RotationMixing | None = None
        self.grid = _checked(grid, weight)
        if mixing == "kernel":
            self.mixing = RotationMixing(self.grid, dtype=dtype, device=device)
        self.reset_parameters(generator)

    def set_grid(self, grid: RotationGrid | str) -> None:
        """Take other rotations, at any time: the weights do not depend on them."""
        self.grid = _checked(grid, self.weight_kind)
        self._kept = None
        if self.mixing is not None:
            self.mixing.set_grid(self.grid)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw weights that give filters the He variance, the mean taken over pixels; biases are zero."""
        variance = 2.0 / (self.channels_in * self.kernel_size**2)
        if self.weight_kind == "square":
            variance /= square_variance(self.kernel_size, self.grid)
        elif self.weight_kind != "ball":
            variance *= self.kernel_size / TRILINEAR_LOSS
        with torch.no_grad():
            self.weight.normal_(std=math.sqrt(variance), generator=generator)
            if self.bias is not None:
                self.bias.zero_()

    def filters(self) -> Float[Tensor, "rotation channel_out channel_in rows columns"]:
        """The filter of every rotation, differentiable; built in float32 or float64, outside autocast."""
        self.filters_made += 1
        with torch.autocast(self.weight.device.type, enabled=False):
            work = self.weight.float() if self.weight.dtype in (torch.float16, torch.bfloat16) else self.weight
            if self.weight_kind == "ball":
                matrix = _filter_matrix(self, work)  # (function, rotation y x)
                flat = work.flatten(0, 1) @ matrix
                made = flat.unflatten(1, (len(self.grid), -1)).transpose(0, 1)
                made = made.reshape(len(self.grid), self.channels_out, self.channels_in, self.kernel_size, -1)
            elif self.weight_kind == "square":
                made = square_filters(work, self.grid)
            else:
                made = cube_filters(work, self.grid, padded=self.weight_kind == "cube_padded")
        return made.to(self.weight.dtype)

    def forward(
        self,
        field: Float[Tensor, "batch channel y x"],
        *,
        rotations: slice | None = None,
        stride: int | None = None,
        dilation: int = 1,
    ) -> Float[Tensor, "batch channel_out y_out x_out"]:
        """Apply the convolution.

        Parameters
        ----------
        field
            (batch, channels_in, y, x) for lifting, else (batch, rotation * channels_in, y, x).
        rotations
            Some of the grid's rotations only, a contiguous range; ``field`` then holds those.
        stride, dilation
            In place of the layer's own, for dense evaluation.
        """
        count = len(range(*rotations.indices(len(self.grid)))) if rotations is not None else len(self.grid)
        expected = self.channels_in * (1 if self.lifting else count)
        if field.shape[1] != expected:
            kind = "image channels" if self.lifting else f"channels of {count} rotations x {self.channels_in}"
            raise ValueError(
                f"ProjectedConv2d expects {expected} {kind}, got {field.shape[1]} (shape {tuple(field.shape)})."
            )
        stride = self.stride if stride is None else stride
        bias = None if self.bias is None else self.bias.repeat(count)
        if self.uses_profiles():
            result = self._by_profiles(field, bias, rotations, stride, dilation)
        else:
            filters = self._current()
            if rotations is not None:
                filters = filters[rotations.start * self.channels_out : rotations.stop * self.channels_out]
            groups = 1 if self.lifting else count
            result = grouped_conv2d(field, filters, bias, stride, int(self.padding), dilation, groups)
        if self.mixing is None:
            return result
        if rotations is not None:
            raise ConfigError("a layer whose rotations mix cannot be evaluated a few rotations at a time.")
        return self.mixing(result)

    def uses_profiles(self) -> bool:
        """Whether maps of planar profiles are mixed instead of convolving with every filter."""
        if not self.lifting or self.weight_kind != "ball" or self.evaluation == "filters":
            return False
        if self.evaluation == "profiles":
            return True
        basis = ball_basis(self.kernel_size, self.richness)
        profiles, taps = planar_profiles(basis).shape[-1], self.kernel_size**2
        outputs = len(self.grid) * self.channels_out
        worth = outputs * taps > PROFILE_GAIN * profiles * (taps + outputs)
        return worth and outputs * self.channels_in >= LEAST_FILTERS

    def fold(self) -> nn.Conv2d:
        """A plain convolution with the present filters: for export, or where the weights are final.

        Raises
        ------
        ConfigError
            If rotations mix: :func:`equivox.nn.fold` makes two layers of that.
        """
        if self.mixing is not None:
            raise ConfigError("a layer with mixing='kernel' is no single convolution; use equivox.nn.fold.")
        with torch.no_grad():
            made = self.filters().flatten(0, 1)
            groups = 1 if self.lifting else len(self.grid)
            plain = nn.utils.skip_init(
                nn.Conv2d, self.channels_in * groups, len(made), self.kernel_size, stride=self.stride,
                padding=self.padding, groups=groups, bias=self.bias is not None, dtype=made.dtype, device=made.device,
            )  # fmt: skip
            plain.weight.copy_(made)
            if self.bias is not None and plain.bias is not None:
                plain.bias.copy_(self.bias.repeat(len(self.grid)))
        return plain

    def train(self, mode: bool = True) -> ProjectedConv2d:
        """Switch mode; kept filters are forgotten when training begins."""
        super().train(mode)
        if mode:
            self._kept = None
        return self

    def extra_repr(self) -> str:
        """Sizes, grid, weight, and how far its answers are from in-plane equivariance at 45 degrees (measured)."""
        kind = f"lifting, {self.weight_kind}" if self.lifting else self.weight_kind
        found = (
            f"{self.channels_in}, {self.channels_out}, kernel_size={self.kernel_size}, grid={self.grid.name} "
            f"({len(self.grid)} rotations), {kind}, stride={self.stride}, padding={self.padding}"
        )
        if self.weight_kind == "square":
            return found
        error = in_plane_error(self.kernel_size, weight=self.weight_kind, richness=self.richness)
        return f"{found}, in_plane_error={error:.2g}"

    def as_volume(self, side: int | None = None) -> Float[Tensor, "channel_out channel_in x y z"]:
        """The weights as volumes with voxels of one pixel, axes (x, y, z), to look at or to write as a map.

        Raises
        ------
        ConfigError
            If the weights are planar, or cubes and another side is asked for.
        """
        if self.weight_kind == "ball":
            return sample_ball(ball_basis(self.kernel_size, self.richness), self.weight.detach(), side)
        if self.weight_kind == "square" or side not in (None, self.kernel_size):
            raise ConfigError(f"weight={self.weight_kind!r} is no volume of {side or self.kernel_size} voxels a side.")
        return self.weight.detach().clone()

    def _current(self, *, profiles: bool = False) -> Tensor:
        """Filters or profile weights (rotation * channel_out, channel_in, …): kept while nothing changes in evaluation.

        Validity is judged by the values of the weight, so no way of changing it leaves stale filters behind.
        """
        make = self._profile_weights if profiles else lambda: self.filters().flatten(0, 1)
        if self.training or (torch.is_grad_enabled() and self.weight.requires_grad) or torch.compiler.is_compiling():
            return make()
        kept = self._kept
        if (
            kept is None
            or kept[1] is not self.grid
            or kept[0].dtype != self.weight.dtype
            or kept[0].device != self.weight.device
            or not torch.equal(kept[0], self.weight)
        ):
            with torch.inference_mode(False), torch.no_grad():
                kept = self._kept = (self.weight.detach().clone(), self.grid, make())
        return kept[2]

    def _by_profiles(
        self, field: Tensor, bias: Tensor | None, rotations: slice | None, stride: int, dilation: int
    ) -> Tensor:
        """Convolve with the planar profiles, then mix their maps into those of all rotations."""
        profiles = _profile_filters(self, self.weight).repeat(self.channels_in, 1, 1, 1)
        maps = functional.conv2d(field, profiles, None, stride, self.padding, dilation, groups=self.channels_in)
        mix = self._current(profiles=True)
        if rotations is not None:
            mix = mix[rotations.start * self.channels_out : rotations.stop * self.channels_out]
        return functional.conv2d(maps, mix.flatten(1)[..., None, None], bias)

    def _profile_weights(self) -> Tensor:
        """(rotation * channel_out, channel_in, profile): what each map of a profile contributes."""
        self.filters_made += 1
        with torch.autocast(self.weight.device.type, enabled=False):
            work = self.weight.float() if self.weight.dtype in (torch.float16, torch.bfloat16) else self.weight
            mixing = profile_mixing(ball_basis(self.kernel_size, self.richness), self.grid)
            made = torch.einsum("oib,rpb->roip", work, mixing.to(work))
        return made.flatten(0, 1).to(self.weight.dtype)

    def __getstate__(self) -> dict[str, object]:
        """Copies and pickles start without kept filters."""
        return {**self.__dict__, "_kept": None, "_matrix": None}

    _matrix: tuple[RotationGrid, Tensor] | None = None


def _filter_matrix(layer: ProjectedConv2d, like: Tensor) -> Tensor:
    """(function, rotation * y * x) in the dtype and on the device of the weights."""
    kept = layer._matrix
    if kept is None or kept[0] is not layer.grid or kept[1].dtype != like.dtype or kept[1].device != like.device:
        full = ball_matrix(ball_basis(layer.kernel_size, layer.richness), layer.grid)
        kept = layer._matrix = (layer.grid, full.flatten(0, 2).mT.contiguous().to(like))
    return kept[1]


def _profile_filters(layer: ProjectedConv2d, like: Tensor) -> Tensor:
    """(profile, 1, y, x)."""
    return (
        planar_profiles(ball_basis(layer.kernel_size, layer.richness)).permute(2, 0, 1)[:, None].to(like).contiguous()
    )


def _checked(grid: RotationGrid | str, weight: str) -> RotationGrid:
    """The grid, if this kind of weight can be turned by it."""
    grid = rotation_grid(grid) if isinstance(grid, str) else grid
    if weight == "square" and bool((grid.matrices[:, 2, 2].abs() < 1.0 - 1e-9).any()):
        raise ConfigError(
            f"weight='square' lives in the plane, but the grid {grid.name} turns out of it; take a group C<n> or D<n>."
        )
    return grid

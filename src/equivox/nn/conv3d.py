"""Steerable convolution on voxel grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irreps, IrrepsLike
from equivox.kernels.basis3d import filter_degrees
from equivox.kernels.plan import KernelPlan, Scaling, make_plan
from equivox.kernels.radial import GaussianShells, RadialFamily, SmoothFinite
from equivox.kernels.sampled import TapFamily
from equivox.kernels.taps import TapGrid
from equivox.nn.folding import FoldedKernels, make_kernels
from equivox.nn.layout import place_channels, require_channels, take_channels


class SteerableConv3d(nn.Module):
    """Convolution from one channel layout to another that commutes with rotations (and, for O(3), reflections).

    The kernel is a learned combination of ``phi_n(|x|) C Y^J(x / |x|)`` sampled at tap positions in mm. Channels that
    no path reaches are zero and cost nothing; channels that no path reads are skipped.

    Parameters
    ----------
    irreps_in, irreps_out
        Channel layouts, both of O(3) or both of SO(3).
    kernel_size
        Voxels that the kernel spans along the finest axis; other axes get as many taps as fit into the same length in
        mm. Three numbers are taps along (x, y, z).
    voxel_size_mm
        Edge of a voxel, one number or (x, y, z).
    radial
        Radial family with distances in mm, or :class:`MatchedShells`, which stays equivariant between the turns of the
        grid (``MatchedShells.for_grid``). Default: Gaussian shells of steerable.md 1.6 (band limits "compromise") on
        the ball without corners, 81 taps at size 5.
    lmax
        Highest degree of a filter; default: whatever the layouts and the family allow.
    stride, dilation
        As in ``conv3d``. A stride keeps rotations by quarter turns only if it meets the grid symmetrically (odd sizes
        for stride 2); see ``BlurPool3d``.
    padding
        ``"same"`` pads zeros so that stride 1 keeps the size; or voxels per side.
    self_connection
        Adds a learned point-wise mixing of equal irreps, folded into the centre tap. Default: as published, so with
        the smooth-finite family only (its kernels may vanish in the centre).
    normalization
        ``"published"``: e3pose.md 5.5 or steerable.md 1.6. ``"unit"``: every reached component has unit variance for
        white unit-variance input and weights N(0, 1).
    generator
        Source of the initial weights, N(0, 1); default: torch's own.
    dtype, device
        Of the parameters.

    Attributes
    ----------
    weight
        (radial functions, n_w) in e3nn's path order for the smooth-finite family, flat for Gaussian shells.
    self_connection
        Flat weights of the self-connection, or ``None``.

    Raises
    ------
    ConfigError
        If no path connects the layouts, or sizes do not fit.

    Notes
    -----
    In training the kernel is made at every call, differentiably. In evaluation without gradients it is made once and
    kept for as long as the parameters keep their values.

    Examples
    --------
    >>> layer = SteerableConv3d("1x0e", "4x0e + 2x1o", 5)
    >>> layer(torch.zeros(1, 1, 8, 8, 8)).shape
    torch.Size([1, 10, 8, 8, 8])
    """

    weight: nn.Parameter
    self_connection: nn.Parameter | None

    def __init__(
        self,
        irreps_in: IrrepsLike,
        irreps_out: IrrepsLike,
        kernel_size: int | Sequence[int] = 5,
        *,
        voxel_size_mm: float | Sequence[float | int] = 1.0,
        radial: RadialFamily | TapFamily | None = None,
        lmax: int | None = None,
        stride: int = 1,
        padding: Literal["same"] | int = "same",
        dilation: int = 1,
        self_connection: bool | None = None,
        normalization: Scaling = "published",
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.irreps_in = Irreps(irreps_in)
        self.irreps_out = Irreps(irreps_out)
        self.grid = TapGrid.for_size(kernel_size, voxel_size_mm)
        if radial is None:
            radial = GaussianShells.for_kernel(max(self.grid.taps), voxel_size_mm=min(self.grid.voxel_size_mm))
        self.radial = radial
        self.lmax = lmax
        self.stride = stride
        self.dilation = dilation
        self.normalization: Scaling = normalization
        self.has_self_connection = isinstance(radial, SmoothFinite) if self_connection is None else self_connection
        if padding == "same":
            if self.grid.center is None:
                raise ConfigError(f"kernel size {self.grid.taps} is even: padding 'same' cannot be; give a number.")
            x, y, z = self.grid.taps
            self.padding = ((x - 1) * dilation // 2, (y - 1) * dilation // 2, (z - 1) * dilation // 2)
        else:
            self.padding = (int(padding),) * 3
        plan = self._plan = make_plan(
            self.irreps_in, self.irreps_out, self.grid, radial, lmax, self.has_self_connection, normalization
        )
        slices_in, slices_out = self.irreps_in.slices(), self.irreps_out.slices()
        self._read = [[slices_in[block] for block in group.blocks_in] for group in plan.groups]
        self._written = [[slices_out[block] for block in group.blocks_out] for group in plan.groups]
        if not plan.pairs and not plan.self_terms:
            self._require_functions()
            raise ConfigError(
                f"no path leads from {self.irreps_in} to {self.irreps_out} with filters up to degree {lmax}; "
                f"check parities (a scalar 0e reaches 1o, not 1e) or raise lmax."
            )
        self.weight = nn.Parameter(torch.empty(plan.weight_shape, dtype=dtype, device=device))
        if self.has_self_connection:
            self.self_connection = nn.Parameter(torch.empty(plan.self_count, dtype=dtype, device=device))
        else:
            self.register_parameter("self_connection", None)
        self._folded = FoldedKernels()
        self.reset_parameters(generator)

    def _require_functions(self) -> None:
        """Let a family given on taps say why it has no function of a degree that the layouts ask for."""
        pairs = ((a, b) for _, a in self.irreps_in for _, b in self.irreps_out)
        for degree in sorted({degree for a, b in pairs for degree in filter_degrees(a, b, self.lmax)}):
            if isinstance(self.radial, TapFamily):
                self.radial.functions(degree, self.grid)

    @property
    def plan(self) -> KernelPlan:
        """Paths and layout of the kernel; shared between equal layers."""
        return self._plan

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights from N(0, 1)."""
        with torch.no_grad():
            self.weight.normal_(generator=generator)
            if self.self_connection is not None:
                self.self_connection.normal_(generator=generator)

    def kernel(self) -> Float[Tensor, "channel_out channel_in x y z"]:
        """The whole kernel as ``conv3d`` would take it, zeros and self-connection included; differentiable."""
        kernels = make_kernels(self._plan, self.weight, self.self_connection)
        full = kernels[0].new_zeros(self.irreps_out.dimension, self.irreps_in.dimension, *self.grid.taps)
        for kernel, read, written in zip(kernels, self._read, self._written, strict=True):
            rows = [channel for part in written for channel in range(part.start, part.stop)]
            columns = [channel for part in read for channel in range(part.start, part.stop)]
            full[torch.tensor(rows, device=full.device)[:, None], torch.tensor(columns, device=full.device)] = kernel
        return full

    def to_conv3d(self) -> nn.Conv3d:
        """A plain convolution with the present kernel: for export, or where the weights are final."""
        plain = nn.Conv3d(
            self.irreps_in.dimension,
            self.irreps_out.dimension,
            self.grid.taps,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            bias=False,
            dtype=self.weight.dtype,
            device=self.weight.device,
        )
        with torch.no_grad():
            plain.weight.copy_(self.kernel())
        return plain

    def forward(
        self, field: Float[Tensor, "batch channel_in x y z"]
    ) -> Float[Tensor, "batch channel_out x_out y_out z_out"]:
        """Apply the convolution; channels as in ``irreps_in`` and ``irreps_out``."""
        require_channels(field, self.irreps_in, "SteerableConv3d")
        needs_gradient = torch.is_grad_enabled() and (
            self.weight.requires_grad or (self.self_connection is not None and self.self_connection.requires_grad)
        )
        if self.training or needs_gradient:
            kernels = make_kernels(self._plan, self.weight, self.self_connection)
        else:
            kernels = self._folded.get(self._plan, self.weight, self.self_connection)
        results = [
            functional.conv3d(
                take_channels(field, read),
                kernel,
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
            )
            for kernel, read in zip(kernels, self._read, strict=True)
        ]
        return place_channels(results, self._written, self.irreps_out.dimension)

    def train(self, mode: bool = True) -> SteerableConv3d:
        """Switch mode; a kept kernel is forgotten when training begins."""
        super().train(mode)
        if mode:
            self._folded.clear()
        return self

    def extra_repr(self) -> str:
        """Layouts, taps and family."""
        return f"{self.irreps_in} -> {self.irreps_out}, taps={self.grid.taps}, radial={self.radial}"

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
from equivox.kernels.families import BasisName, make_family, require_reach
from equivox.kernels.matched import MatchedShells
from equivox.kernels.plan import PATH_FAMILIES, KernelPlan, Scaling, make_plan
from equivox.kernels.radial import RadialFamily
from equivox.kernels.sampled import TapFamily
from equivox.kernels.taps import TapGrid
from equivox.nn.folding import FoldedKernels, make_kernels
from equivox.nn.grids import GridRule, require_symmetric_grid
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
    basis
        Family by name, at its library's default settings: ``"matched"`` (default; stays equivariant between the turns
        of the grid, on a ball of 27, 81 or 251 taps at sizes 3, 5, 7, filters up to degree 3), ``"se3cnn"``,
        ``"e3nn"`` or ``"escnn"``.
    radial
        In place of a name, a family with settings of your own, distances in mm (:class:`MatchedShells` excepted:
        it counts in voxels of the finest axis).
    lmax
        Highest degree of a filter; default: whatever the layouts and the family allow.
    stride, dilation
        As in ``conv3d``. A stride does not filter first: see :class:`BlurPool3d`.
    padding
        ``"same"`` pads zeros so that stride 1 keeps the size; or voxels per side.
    grid
        With a stride: ``"symmetric"`` refuses sides that it meets off centre (then quarter turns are not exact; with
        padding "same" and a stride of 2 sides must be odd), ``"any"`` takes all, as published networks do.
    self_connection
        Adds a learned point-wise mixing of equal irreps, folded into the centre tap. Default: as published, so with
        e3nn's families only (their kernels may vanish in the centre).
    normalization
        ``"unit"`` (default with matched shells): every reached component has unit variance for white unit-variance
        input and weights N(0, 1). ``"published"`` (default otherwise): as in the library of the family.
    generator
        Source of the initial weights, N(0, 1); default: torch's own.
    dtype, device
        Of the parameters.

    Attributes
    ----------
    weight
        (radial functions, n_w) in e3nn's path order for e3nn's families, flat for all others.
    self_connection
        Flat weights of the self-connection, or ``None``.

    Raises
    ------
    ConfigError
        If no path connects the layouts, if an output block could only be reached by filters that do not exist on these
        taps (degree 3 at size 3), or if sizes do not fit.
    GridSymmetryError
        In ``forward``, if a stride meets the grid off centre.

    Notes
    -----
    Unit variance is meant for white input. Smooth input of unit variance comes out larger, by 2.4, 3.0 and 4.4 for
    scalars at sizes 3, 5, 7 and 1.4 to 2.5 for vectors (measured on noise averaged over 7^3 voxels), so deep networks
    without normalisation layers start with :func:`equivox.nn.unit_variance_`.

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
        basis: BasisName | None = None,
        radial: RadialFamily | TapFamily | None = None,
        lmax: int | None = None,
        stride: int = 1,
        padding: Literal["same"] | int = "same",
        dilation: int = 1,
        grid: GridRule = "symmetric",
        self_connection: bool | None = None,
        normalization: Scaling | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.irreps_in = Irreps(irreps_in)
        self.irreps_out = Irreps(irreps_out)
        self.grid = TapGrid.for_size(kernel_size, voxel_size_mm)
        if radial is None:
            radial = make_family("matched" if basis is None else basis, self.grid)
        elif basis is not None:
            raise ConfigError(f"give either basis={basis!r} or radial={radial}, not both.")
        if normalization is None:
            normalization = "unit" if isinstance(radial, MatchedShells) else "published"
        self.radial = radial
        self.lmax = lmax
        self.stride = stride
        self.dilation = dilation
        self.grid_rule: GridRule = grid
        self.normalization: Scaling = normalization
        self.has_self_connection = isinstance(radial, PATH_FAMILIES) if self_connection is None else self_connection
        if padding == "same":
            if self.grid.center is None:
                raise ConfigError(
                    f"kernel size {self.grid.taps} is even, so padding 'same' cannot be; take an odd size (5), or give "
                    f"padding in voxels and let a second even layer undo the shift by half a voxel."
                )
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
        require_reach(self.irreps_in, self.irreps_out, plan.active_out, self.grid, radial, lmax)
        if not plan.pairs and not plan.self_terms:
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

    @property
    def plan(self) -> KernelPlan:
        """Paths and layout of the kernel; shared between equal layers."""
        return self._plan

    def channels_of_groups(self) -> tuple[list[list[slice]], list[list[slice]]]:
        """Channels that each of the layer's convolutions reads and writes."""
        return self._read, self._written

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights from N(0, 1)."""
        with torch.no_grad():
            self.weight.normal_(generator=generator)
            if self.self_connection is not None:
                self.self_connection.normal_(generator=generator)

    def scale_blocks_(self, factors: Sequence[float]) -> None:
        """Multiply what each block of ``irreps_out`` receives, by scaling its weights; one factor per block."""
        with torch.no_grad():
            for term in self._plan.pairs:
                for part in term.weight_slices:
                    self.weight[..., part].mul_(factors[term.block_out])
            if self.self_connection is not None:
                for entry in self._plan.self_terms:
                    self.self_connection[entry.weights].mul_(factors[entry.block_out])

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
        if self.stride > 1 and self.grid_rule == "symmetric":
            x, y, z = ((taps - 1) * self.dilation + 1 for taps in self.grid.taps)
            require_symmetric_grid(field.shape[2:], (x, y, z), self.padding, (self.stride,) * 3, "SteerableConv3d")
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

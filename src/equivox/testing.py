"""Measure whether a layer, a network or any function on fields is equivariant.

Two measurements. On the symmetries of the cube, which map the voxel grid to itself, a layer is exact or wrong:
:func:`assert_equivariant`. At any other angle the grid itself is in the way: :func:`equivariance_error` gives a number,
from fields that are sums of wide Gaussians evaluated analytically at rotated points, so that no interpolation error
hides or adds anything. A plain convolution must fail both: :func:`plain_control`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.geometry.irreps import Irreps, IrrepsLike
from equivox.geometry.rotations import cube_group
from equivox.geometry.wigner import irreps_matrix

FieldFunction = Callable[[Tensor], Tensor]
"""From (batch, channel, x, y, z) to the same kind, or to (batch, channel) after pooling over space."""

EXACT_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Relative error that counts as exact, per dtype."""
CONTROL_MINIMUM = 1e-2
"""A plain convolution must err by more than this, or the measurement itself is blind."""


GRID_CHUNK = 8
"""How many turned copies of the noise go through a function at once."""


def rotate_field(
    field: Float[Tensor, "batch channel *space"], irreps: IrrepsLike, element: Float[Tensor, "3 3"]
) -> Float[Tensor, "batch channel *turned"]:
    """Turn a field by a symmetry of the cube, without interpolation: ``f'(R p) = D(R) f(p)`` about the grid's centre.

    Parameters
    ----------
    field
        (batch, channel, x, y, z), or (batch, channel) for a field that has been pooled over space.
    irreps
        Layout of the channels.
    element
        Signed permutation matrix, see ``cube_group``; with SO(3) irreps a proper one.

    Raises
    ------
    ValueError
        If ``element`` is not a symmetry of the cube.
    """
    return _turn(field, irreps_matrix(irreps, element.to(torch.float64)), element)


def _turn(field: Tensor, matrix: Tensor, element: Tensor) -> Tensor:
    """:func:`rotate_field` with the representation matrix at hand."""
    turned = torch.einsum("ij,bj...->bi...", matrix.to(field), field)
    if field.ndim == 2:
        return turned
    steps = element.round()
    if not torch.equal(steps.abs().sum(0), torch.ones_like(steps[0])) or float((element - steps).abs().max()) > 1e-6:
        raise ValueError("rotate_field takes symmetries of the cube (signed permutations) only; see cube_group().")
    sources = steps.abs().argmax(dim=1).tolist()
    flipped = [axis + 2 for axis in range(3) if float(steps[axis, sources[axis]]) < 0]
    return turned.permute(0, 1, *[source + 2 for source in sources]).flip(flipped)


@dataclass(frozen=True, slots=True)
class BandLimitedField:
    """Sums of isotropic Gaussians with coefficients in a channel layout, known at every point.

    ``f(p) = sum_k a_k exp(-|p - c_k|^2 / (2 width^2))``, ``batch`` fields at once.

    Parameters
    ----------
    irreps
        Channel layout.
    centers_mm
        ``c_k`` (batch, count, 3).
    amplitudes
        ``a_k`` (batch, count, channel).
    width_mm
        Standard deviation; at least two voxels keeps the field smooth for a 5-tap kernel.
    """

    irreps: Irreps
    centers_mm: Float[Tensor, "batch count 3"]
    amplitudes: Float[Tensor, "batch count channel"]
    width_mm: float

    def sample(
        self,
        shape: Sequence[int],
        *,
        voxel_size_mm: float | Sequence[float | int] = 1.0,
        rotation: Float[Tensor, "3 3"] | None = None,
    ) -> Float[Tensor, "batch channel x y z"]:
        """Values on a grid centred on the origin, of the field or of the field turned by ``rotation``."""
        steps = [voxel_size_mm] * 3 if isinstance(voxel_size_mm, (int, float)) else list(voxel_size_mm)
        axes = [
            (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) * step
            for side, step in zip(shape, steps, strict=True)
        ]
        centers, amplitudes = self.centers_mm, self.amplitudes
        if rotation is not None:
            centers = centers @ rotation.mT.to(centers)
            amplitudes = amplitudes @ irreps_matrix(self.irreps, rotation.to(amplitudes)).mT
        bumps = [
            torch.exp(-0.5 * ((axis - centers[..., index, None]) / self.width_mm) ** 2)
            for index, axis in enumerate(axes)
        ]
        return torch.einsum("bkc,bkx,bky,bkz->bcxyz", amplitudes, *bumps)


def band_limited_field(
    irreps: IrrepsLike,
    *,
    generator: torch.Generator,
    batch: int = 8,
    count: int = 12,
    width_mm: float = 2.0,
    spread_mm: float = 4.0,
) -> BandLimitedField:
    """Draw random smooth fields: Gaussians with centres of standard deviation ``spread_mm`` and normal amplitudes."""
    layout = Irreps(irreps)
    centers = torch.randn(batch, count, 3, generator=generator, dtype=torch.float64) * spread_mm
    amplitudes = torch.randn(batch, count, layout.dimension, generator=generator, dtype=torch.float64)
    return BandLimitedField(layout, centers, amplitudes / math.sqrt(count), width_mm)


def equivariance_error(
    function: FieldFunction,
    irreps_in: IrrepsLike,
    irreps_out: IrrepsLike,
    rotations: Float[Tensor, "rotation 3 3"],
    *,
    generator: torch.Generator,
    method: Literal["analytic", "grid"] = "analytic",
    side: int = 17,
    batch: int = 8,
    width_mm: float = 2.0,
    spread_mm: float = 4.0,
    voxel_size_mm: float | Sequence[float | int] = 1.0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "rotation"]:
    """Relative equivariance error of a function, one number per rotation.

    ``"analytic"``: band-limited fields and the same fields turned, both evaluated exactly on the grid, go through the
    function; what comes out is compared at the grid's centre voxel, which no rotation moves (or as it is, if the
    function pools over space): ``rms(f(R x) - D(R) f(x)) / rms(f(x))`` over the batch. ``"grid"``: white noise and
    symmetries of the cube, compared everywhere: ``max |f(R x) - R f(x)| / max |f(x)|``.

    Parameters
    ----------
    function
        The layer or network, in the mode (training or evaluation) that is meant.
    irreps_in, irreps_out
        Channel layouts.
    rotations
        Rotations, with O(3) layouts also reflections; for ``"grid"`` elements of the cube group.
    generator
        CPU generator of the random fields.
    side
        Voxels along each axis of the input; odd for ``"analytic"``, and larger than the receptive field.
    batch
        Number of random fields.
    width_mm, spread_mm
        Of :func:`band_limited_field`; the wider the field, the smaller the error of a discrete layer.
    voxel_size_mm
        Voxel edges of the grid.
    dtype, device
        Of the input that the function gets.

    Returns
    -------
    Errors on the CPU in float64.

    Raises
    ------
    ValueError
        If the output has no centre voxel (an even side).

    Examples
    --------
    >>> draw = torch.Generator().manual_seed(0)
    >>> float(equivariance_error(torch.relu, "1x0e", "1x0e", cube_group()[1:3], generator=draw).max())
    0.0
    """
    layout_in, layout_out = Irreps(irreps_in), Irreps(irreps_out)
    with torch.no_grad():
        if method == "grid":
            noise = torch.randn(batch, layout_in.dimension, side, side, side, generator=generator, dtype=torch.float64)
            field = noise.to(device=device, dtype=dtype)
            plain = function(field).double().cpu()
            matrices_in = irreps_matrix(layout_in, rotations.to(torch.float64))
            matrices_out = irreps_matrix(layout_out, rotations.to(torch.float64))
            errors = []
            for start in range(0, len(rotations), GRID_CHUNK):
                part = range(start, min(start + GRID_CHUNK, len(rotations)))
                turned = torch.cat([_turn(field, matrices_in[r], rotations[r]) for r in part])
                results = function(turned).double().cpu().unflatten(0, (len(part), batch))
                errors += [
                    (result - _turn(plain, matrices_out[r], rotations[r])).abs().max()
                    for r, result in zip(part, results, strict=True)
                ]
            return torch.stack(errors) / plain.abs().max().clamp_min(1e-300)
        fields = band_limited_field(layout_in, generator=generator, batch=batch, width_mm=width_mm, spread_mm=spread_mm)

        def centre_output(rotation: Tensor | None) -> Tensor:
            sampled = fields.sample((side,) * 3, voxel_size_mm=voxel_size_mm, rotation=rotation)
            return _centre(function(sampled.to(device=device, dtype=dtype)).double().cpu())

        plain = centre_output(None)
        matrices = irreps_matrix(layout_out, rotations.to(torch.float64))
        size = plain.square().mean().sqrt().clamp_min(1e-300)
        return torch.stack(
            [
                (centre_output(r) - plain @ matrix.mT).square().mean().sqrt() / size
                for r, matrix in zip(rotations, matrices, strict=True)
            ]
        )


def _centre(field: Tensor) -> Tensor:
    """(batch, channel) at the centre voxel."""
    if field.ndim == 2:
        return field
    if any(side % 2 == 0 for side in field.shape[2:]):
        raise ValueError(
            f"the output sides {tuple(field.shape[2:])} have no centre voxel; choose an input side that gives odd "
            f"ones, or pool over space inside the function."
        )
    x, y, z = (side // 2 for side in field.shape[2:])
    return field[:, :, x, y, z]


def plain_control(
    irreps_in: IrrepsLike,
    irreps_out: IrrepsLike,
    *,
    generator: torch.Generator,
    kernel_size: int = 3,
    dtype: torch.dtype = torch.float64,
) -> nn.Conv3d:
    """A plain convolution between the same numbers of channels, with random weights: not equivariant, on purpose."""
    control = nn.Conv3d(
        Irreps(irreps_in).dimension,
        Irreps(irreps_out).dimension,
        kernel_size,
        padding=kernel_size // 2,
        bias=False,
        dtype=dtype,
    )
    with torch.no_grad():
        control.weight.copy_(torch.randn(control.weight.shape, generator=generator, dtype=torch.float64))
    return control


def assert_equivariant(
    function: FieldFunction,
    irreps_in: IrrepsLike,
    irreps_out: IrrepsLike,
    *,
    generator: torch.Generator | None = None,
    improper: bool | None = None,
    side: int = 7,
    batch: int = 2,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    tolerance: float | None = None,
) -> None:
    """Raise unless a function commutes with every symmetry of the cube, to rounding.

    Parameters
    ----------
    function
        The layer or network. Its parameters have the given dtype.
    irreps_in, irreps_out
        Channel layouts.
    generator
        CPU generator of the noise; default: seed 0.
    improper
        Test all 48 symmetries; default: if the layouts have parity. Otherwise the 24 rotations.
    side, batch
        Size of the random input.
    dtype, device
        Of the input; float64 shows mistakes most clearly.
    tolerance
        Largest relative error; default 1e-10 in float64, 1e-5 in float32.

    Raises
    ------
    AssertionError
        If the error is larger, or if a plain convolution passes the same test (then the test is blind).

    Examples
    --------
    >>> from equivox.nn import SteerableConv3d
    >>> assert_equivariant(SteerableConv3d("1x0e", "1x0e + 1x1o", 3).double(), "1x0e", "1x0e + 1x1o")
    """
    layout_in, layout_out = Irreps(irreps_in), Irreps(irreps_out)
    draw = torch.Generator().manual_seed(0) if generator is None else generator
    group = cube_group(improper=not layout_in.is_so3 if improper is None else improper)
    limit = EXACT_TOLERANCE[dtype] if tolerance is None else tolerance

    def errors_of(tested: FieldFunction) -> Tensor:
        return equivariance_error(
            tested, layout_in, layout_out, group, generator=draw, method="grid", side=side, batch=batch, dtype=dtype,
            device=device,
        )  # fmt: skip

    errors = errors_of(function)
    worst = int(errors.argmax())
    if not float(errors[worst]) <= limit:
        failing = int((errors > limit).sum())
        raise AssertionError(
            f"not equivariant: relative error {float(errors[worst]):.2e} (limit {limit:.0e}) under "
            f"{group[worst].int().tolist()}; {failing} of {len(group)} symmetries fail."
        )
    control = plain_control(layout_in, layout_out, generator=draw, dtype=dtype).to(device)
    if float(errors_of(control).max()) <= CONTROL_MINIMUM:
        raise AssertionError("a plain convolution passes too: this test cannot see a broken layer; use more channels.")

"""Densities from atoms, and their projections at given rotations.

Volumes are ``[z, y, x]`` and images ``[y, x]``; the origin is the sample with index ``n // 2`` along every axis, as in
RELION, cryoSPARC and MRC maps. A rotation is the pose of the particle: the density at ``p`` moves to ``R p``, and the
image is the line integral along z, ``I(x, y) = sum_z V(Rᵀ (x, y, z))`` times the voxel's edge.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError
from equivox.geometry.density import gaussian_density

PADDING = 2
"""The volume is padded to this many times its edge before its transform is cut."""
TAPS = 4
BETA = math.pi * math.sqrt((TAPS / PADDING) ** 2 * (PADDING - 0.5) ** 2 - 0.8)
"""Width and shape of the kernel that grids the transform."""
SIGMA_PER_RESOLUTION = 0.225
"""Standard deviation of an atom's Gaussian over the resolution (research notes, 9.1)."""
SLICES_AT_ONCE = 1 << 20
"""Frequencies interpolated together."""


def density_from_atoms(
    positions_angstrom: Float[Tensor, "atom 3"],
    weights: Float[Tensor, "atom"],
    *,
    side: int,
    voxel_size_angstrom: float,
    resolution_angstrom: float | None = None,
    sigma_angstrom: float | None = None,
) -> Float[Tensor, "side side side"]:
    """A map of Gaussians, one per atom, whose integrals are the weights (electrons: atomic numbers).

    Parameters
    ----------
    positions_angstrom
        (x, y, z), about the origin.
    weights
        Of each atom.
    side, voxel_size_angstrom
        Of the cubic map; the origin is at index ``side // 2``.
    resolution_angstrom
        Gives the width, 0.225 times the resolution, which must be at least two voxels.
    sigma_angstrom
        The width itself, instead.

    Returns
    -------
    ``[z, y, x]``, weight per Å³, in the precision of the positions.

    Raises
    ------
    ConfigError
        If neither or both of resolution and width are given, or the resolution is finer than two voxels.
    """
    if (resolution_angstrom is None) == (sigma_angstrom is None):
        raise ConfigError("Give either the resolution or the width of the atoms (sigma).")
    if resolution_angstrom is not None:
        if resolution_angstrom < 2.0 * voxel_size_angstrom:
            raise ConfigError(
                f"A resolution of {resolution_angstrom:g} Å needs voxels of at most {resolution_angstrom / 2:g} Å; "
                f"they are {voxel_size_angstrom:g} Å."
            )
        sigma_angstrom = SIGMA_PER_RESOLUTION * resolution_angstrom
    assert sigma_angstrom is not None
    half = 0.0 if side % 2 else 0.5 * voxel_size_angstrom  # that grid's centre lies between two voxels
    total = positions_angstrom.new_zeros((side, side, side))
    values, kinds = weights.unique(return_inverse=True)
    for index, value in enumerate(values.tolist()):  # one field per kind of atom: Gaussians of one weight
        some = positions_angstrom[kinds == index] + half
        channel = torch.zeros(1, len(some), dtype=torch.int64)
        field = gaussian_density(
            some[None], channel, channels=1, side=side, spacing=voxel_size_angstrom, sigma=sigma_angstrom,
            normalization="analytic",
        )  # fmt: skip
        total += value * field[0, 0]
    return total.permute(2, 1, 0).contiguous()


def project(
    volume: Float[Tensor, "side side side"],
    rotations: Float[Tensor, "image 3 3"],
    *,
    voxel_size_angstrom: float = 1.0,
    pixel_size_angstrom: float | None = None,
    image_side: int | None = None,
    shifts_px: Float[Tensor, "image 2"] | None = None,
) -> Float[Tensor, "image image_side image_side"]:
    """Projections of a map by cutting its Fourier transform.

    The map is padded to twice its edge; the cut is gridded with a Kaiser-Bessel kernel of four samples, whose effect
    on the volume is divided out first (Beatty et al., IEEE Trans. Med. Imaging 24:799, 2005, eq. 5).

    Parameters
    ----------
    volume
        ``[z, y, x]``, origin at ``side // 2``.
    rotations
        Poses of the particle.
    voxel_size_angstrom, pixel_size_angstrom
        Of the map, and of the images (by default the same). Larger pixels are those of an image whose Fourier
        transform was cropped.
    image_side
        Edge of the images; by default that of the map.
    shifts_px
        (x, y) of the particle's origin from the pixel ``image_side // 2``.

    Returns
    -------
    ``[y, x]`` each, in the dtype of the map: its line integral along z, in its unit times Å.

    Notes
    -----
    On band-limited maps the error is below 0.2 % of an image's maximum (tested against closed forms). A map whose
    samples are coarser than its details rings, at any rotation but a quarter turn.
    """
    side = volume.shape[0]
    pixel = voxel_size_angstrom if pixel_size_angstrom is None else pixel_size_angstrom
    image_side = side if image_side is None else image_side
    transform = _transform(volume, PADDING * side)
    # images wide enough that the map, turned, does not reach around their borders
    wide = max(image_side, math.ceil(math.sqrt(2.0) * side * voxel_size_angstrom / pixel))
    to_index = PADDING * side * voxel_size_angstrom  # cycles per Å -> samples of the transform
    rows = torch.fft.fftfreq(wide, pixel, dtype=volume.dtype)
    columns = torch.fft.rfftfreq(wide, pixel, dtype=volume.dtype)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    plane = torch.stack([x, y], dim=-1).reshape(-1, 2)
    inside = (plane * to_index).square().sum(-1) < (PADDING * side // 2 - 1) ** 2
    wanted = plane[inside] * to_index
    found = volume.new_empty((len(rotations), image_side, image_side))
    step = max(1, SLICES_AT_ONCE // max(len(wanted), 1))
    for start in range(0, len(rotations), step):
        turns = rotations[start : start + step].to(volume.dtype)
        # V turned by R has the transform F(Rᵀ k); Rᵀ (kx, ky, 0) combines the first two rows of R
        points = torch.einsum("pc,ncd->npd", wanted, turns[:, :2, :])
        cut = torch.zeros(len(turns), len(plane), dtype=transform.dtype)
        cut[:, inside] = _interpolated(transform, points)
        cut = cut.view(len(turns), wide, wide // 2 + 1)
        if shifts_px is not None:
            moved = shifts_px[start : start + step].to(volume.dtype) * pixel
            phase = -2.0 * math.pi * (x * moved[:, 0, None, None] + y * moved[:, 1, None, None])
            cut = cut * torch.polar(torch.ones_like(phase), phase)
        whole = torch.fft.fftshift(torch.fft.irfft2(cut, s=(wide, wide)), dim=(-2, -1))
        first = wide // 2 - image_side // 2
        found[start : start + step] = whole[:, first : first + image_side, first : first + image_side]
    return found * (voxel_size_angstrom**3 / pixel**2)


def _transform(volume: Tensor, size: int) -> Tensor:
    """Centred transform (index ``size // 2`` is frequency 0) of the padded volume, the gridding divided out."""
    side = volume.shape[0]
    offset = (torch.arange(side, dtype=torch.float64) - side // 2) / size
    argument = (BETA**2 - (math.pi * TAPS * offset) ** 2).sqrt()  # real: |offset| <= 1/4
    correction = (torch.sinh(argument) / argument).to(volume.dtype)
    whole = volume / (correction[:, None, None] * correction[None, :, None] * correction[None, None, :])
    first = size // 2 - side // 2
    after = size - side - first
    padded = functional.pad(whole, (first, after, first, after, first, after))
    return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(padded)))


def _interpolated(transform: Tensor, points: Tensor) -> Tensor:
    """Values (image, point) of the transform at frequencies (x, y, z), gridded over four samples along each axis."""
    size = transform.shape[0]
    place = points + size // 2
    low = place.floor()
    first = low.long() - (TAPS // 2 - 1)
    steps = torch.arange(TAPS, dtype=points.dtype) - (TAPS // 2 - 1)
    reach = (place - low)[..., None] - steps  # (image, point, 3, tap)
    root = (1.0 - (2.0 * reach / TAPS) ** 2).clamp_min(0.0).sqrt()
    weights = torch.special.i0(BETA * root) / TAPS
    x, y, z = ((first[..., axis, None] + torch.arange(TAPS)) % size for axis in range(3))
    wx, wy, wz = weights.unbind(-2)
    flat = transform.reshape(-1)
    total = torch.zeros(points.shape[:-1], dtype=transform.dtype)
    for k in range(TAPS):
        for j in range(TAPS):
            row = (z[..., k] * size + y[..., j]) * size
            values = flat[row[..., None] + x]
            total += (wz[..., k] * wy[..., j]) * (values * wx).sum(-1)
    return total

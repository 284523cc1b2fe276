"""Meshes to voxels, batched, on whatever device the coordinates are.

Grids are those of :mod:`equivox.geometry.density`: cubes centred at the origin, axes (x, y, z). A mesh becomes either
its surface or its inside. The inside is found by winding numbers along rays: a ray that leaves a closed part through
its front counts +1, so parts may overlap (where counting crossings modulo two would open holes); of the rays in the
three axis directions the majority decides, so that a hole in one wall lets nothing leak out. With supersampling every
voxel is cut into s³ and holds the share that is filled: 0, 1/s³ ... 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as functional
from jaxtyping import Bool, Float, Int
from torch import Tensor

from equivox.errors import ConfigError, GeometryError

MeshMode = Literal["surface", "occupancy"]
PAIRS_AT_ONCE = 1 << 22
"""Most pairs of a triangle and a ray, or samples of a surface, held at a time."""
SUBVOXELS_AT_ONCE = 1 << 24
"""Most sub-voxels held at a time: larger batches go through in parts."""
SAMPLES_PER_VOXEL = 2
"""Samples of a surface along the edge of one (sub-)voxel: none that is cut through its middle half is missed."""


def fit_to_radius(points: Float[Tensor, "point 3"], radius: float) -> tuple[Float[Tensor, "3"], float]:
    """Centre and scale that bring points into a ball about the origin: ``(points - centre) * scale``.

    The centre is that of the bounding box, the scale brings the farthest point to ``radius``; so the object fits in
    every orientation and has one size in all of them. Give only the vertices that a face uses.

    Raises
    ------
    GeometryError
        If there is no point, or all points are one.

    Examples
    --------
    >>> centre, scale = fit_to_radius(torch.tensor([[0.0, 0, 0], [4.0, 0, 0]]), 1.0)
    >>> centre.tolist(), scale
    ([2.0, 0.0, 0.0], 0.5)
    """
    if points.shape[0] == 0:
        raise GeometryError("there is no point to fit to a grid; give at least two")
    centre = (points.amin(dim=0) + points.amax(dim=0)) / 2
    farthest = float((points - centre).norm(dim=1).max())
    if not farthest > 0:
        raise GeometryError("all points are one and the same, so the object has no size to fit to a grid")
    return centre, radius / farthest


def voxelize_meshes(
    vertices: Sequence[Float[Tensor, "_vertex 3"]],
    faces: Sequence[Int[Tensor, "_face 3"]],
    *,
    side: int,
    spacing: float,
    mode: MeshMode = "occupancy",
    supersample: int = 2,
    rotation: Float[Tensor, "mesh 3 3"] | None = None,
) -> Float[Tensor, "mesh 1 side side side"]:
    """Share of every voxel that is inside each mesh, or cut by its surface.

    Parameters
    ----------
    vertices, faces
        One pair per mesh, in the frame of the grid (see :func:`fit_to_radius`); what lies outside the grid is cut off.
    side, spacing
        Voxels along each axis, and their edge.
    mode
        ``"occupancy"`` fills the inside of closed parts, which may overlap; ``"surface"`` needs no closed mesh.
    supersample
        Sub-voxels along each axis of a voxel; 1 gives 0 and 1 only.
    rotation
        Turns each mesh about the origin first: ``v' = R v``.

    Raises
    ------
    ConfigError
        If a size is not positive.
    GeometryError
        If there are unequal numbers of vertices and faces, or a coordinate is not finite.

    Examples
    --------
    >>> corners = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2]])
    >>> tetrahedron = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    >>> field = voxelize_meshes([corners - 0.5], [tetrahedron], side=16, spacing=0.25, supersample=3)
    >>> round(float(field.sum()) * 0.25**3, 2)
    1.33
    """
    if side < 1 or supersample < 1 or not spacing > 0:
        raise ConfigError(f"side {side}, supersample {supersample} and spacing {spacing} must all be positive")
    if len(vertices) != len(faces):
        raise GeometryError(f"there are {len(vertices)} sets of vertices and {len(faces)} of faces; give pairs")
    fine = side * supersample
    fill = _surface if mode == "surface" else _inside
    fields = [torch.zeros(0, 1, side, side, side)]
    rows = max(1, SUBVOXELS_AT_ONCE // fine**3)
    for first in range(0, len(vertices), rows):
        part = slice(first, first + rows)
        corners, owner = _corners(vertices[part], faces[part], None if rotation is None else rotation[part])
        # in units of sub-voxels: sub-voxel k reaches from k to k + 1
        filled = fill(corners * (supersample / spacing) + fine / 2, owner, len(vertices[part]), fine)
        fields.append(functional.avg_pool3d(filled[:, None].float(), supersample))
    return torch.cat(fields[1:] or fields)


def outside_share(points: Float[Tensor, "point 3"], *, side: int, spacing: float) -> float:
    """Share of the points that lie outside the grid, to say when a grid is too small for an object.

    >>> outside_share(torch.tensor([[0.0, 0, 0], [9.0, 0, 0]]), side=16, spacing=1.0)
    0.5
    """
    if points.shape[0] == 0:
        return 0.0
    return float((points.abs().amax(dim=1) > side * spacing / 2).double().mean())


def _corners(
    vertices: Sequence[Tensor], faces: Sequence[Tensor], rotation: Tensor | None
) -> tuple[Float[Tensor, "face 3 3"], Int[Tensor, " face"]]:
    """Corners of all triangles of all meshes, and which mesh each belongs to."""
    parts = []
    for index, (points, triangles) in enumerate(zip(vertices, faces, strict=True)):
        # float64 where the device has it: which side of a ray an edge passes must not hang on rounding
        points = points.double() if points.device.type != "mps" else points
        if rotation is not None:
            points = points @ rotation[index].to(points).mT
        if not bool(torch.isfinite(points[triangles]).all()):
            raise GeometryError("a mesh has a coordinate that is NaN or infinite; read it with read_mesh")
        parts.append(points[triangles])
    if not parts:
        return torch.zeros(0, 3, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    sizes = torch.tensor([len(part) for part in parts], device=parts[0].device)
    return torch.cat(parts), torch.repeat_interleave(torch.arange(len(parts), device=sizes.device), sizes)


def _inside(corners: Tensor, owner: Tensor, count: int, fine: int) -> Bool[Tensor, "mesh x y z"]:
    """Sub-voxel centres with a non-zero winding number along at least two of the three axes."""
    votes = torch.zeros(count, fine, fine, fine, dtype=torch.uint8, device=corners.device)
    for axis in range(3):
        order = [axis, (axis + 1) % 3, (axis + 2) % 3]
        winding = _ray_winding(corners[..., order], owner, count, fine)
        back = [1 + order.index(a) for a in range(3)]
        votes += (winding != 0).permute(0, *back).to(torch.uint8)
    return votes >= 2


def _ray_winding(corners: Tensor, owner: Tensor, count: int, fine: int) -> Int[Tensor, "mesh depth u v"]:
    """Winding number at every sub-voxel centre, from the signed crossings of the ray in +depth direction.

    Axes of ``corners`` are (depth, u, v). Rays run through the centres of the columns (u, v).
    """
    changes = torch.zeros(count * (fine + 1) * fine * fine, dtype=torch.int32, device=corners.device)
    low = (corners[..., 1:].amin(dim=1) - 0.5).ceil().clamp(0, fine).long()  # first column whose centre may be hit
    high = (corners[..., 1:].amax(dim=1) - 0.5).floor().clamp(-1, fine - 1).long()
    sizes = (high - low + 1).clamp_min(0)
    for part, offset in _parts(sizes.prod(dim=1)):
        rows = sizes[part]
        u = low[part, 0] + torch.div(offset, rows[:, 1], rounding_mode="floor")
        v = low[part, 1] + offset % rows[:, 1]
        triangle = corners[part]
        turn = _turn_about(triangle[..., 1:], torch.stack([u, v], dim=1) + 0.5)
        hit = turn != 0
        triangle, u, v, turn, mesh = triangle[hit], u[hit], v[hit], turn[hit], owner[part[hit]]
        depth = _depth_at(triangle, torch.stack([u, v], dim=1) + 0.5)
        below = (depth - 0.5).ceil().clamp(0, fine).long()  # so many centres lie in front of the crossing
        place = ((mesh * (fine + 1) + below) * fine + u) * fine + v
        changes.index_add_(0, place, turn)
    steps = changes.view(count, fine + 1, fine, fine)
    return steps.flip(1).cumsum(dim=1, dtype=torch.int32).flip(1)[:, 1:]


def _turn_about(triangle: Float[Tensor, "pair 3 2"], point: Float[Tensor, "pair 2"]) -> Int[Tensor, " pair"]:
    """+1, -1 or 0: how often the outline of a triangle runs around a point.

    An edge counts if it crosses the half-line from the point in +u direction. It is always computed from its lower to
    its upper end, so that the two triangles that share it agree to the last bit: no ray slips between them or counts
    twice.
    """
    turn = torch.zeros(len(triangle), dtype=torch.int32, device=triangle.device)
    for first, second in ((0, 1), (1, 2), (2, 0)):
        a, b = triangle[:, first], triangle[:, second]
        swap = (a[:, 1] > b[:, 1]) | ((a[:, 1] == b[:, 1]) & (a[:, 0] > b[:, 0]))
        lower, upper = torch.where(swap[:, None], b, a), torch.where(swap[:, None], a, b)
        crosses = (lower[:, 1] <= point[:, 1]) & (point[:, 1] < upper[:, 1])
        edge, towards = upper - lower, point - lower
        right = edge[:, 0] * towards[:, 1] - edge[:, 1] * towards[:, 0] > 0  # the edge passes at a larger u
        turn += (crosses & right).to(torch.int32) * torch.where(swap, -1, 1).to(torch.int32)
    return turn


def _depth_at(triangle: Float[Tensor, "pair 3 3"], point: Float[Tensor, "pair 2"]) -> Float[Tensor, " pair"]:
    """Depth of the plane of each triangle (depth, u, v) above a point (u, v), kept between its corners."""
    a, b, c = triangle.unbind(dim=1)
    normal = torch.linalg.cross(b - a, c - a)
    slope = normal[:, 0]
    away = ((point - a[:, 1:]) * normal[:, 1:]).sum(dim=1)
    depth = a[:, 0] - away / torch.where(slope == 0, 1.0, slope)
    return depth.clamp(triangle[..., 0].amin(dim=1), triangle[..., 0].amax(dim=1))


def _surface(corners: Tensor, owner: Tensor, count: int, fine: int) -> Bool[Tensor, "mesh x y z"]:
    """Sub-voxels that hold a sample of the surface, from a triangular lattice on every face."""
    filled = torch.zeros(count * fine**3, dtype=torch.bool, device=corners.device)
    edges = (corners - corners.roll(1, dims=1)).norm(dim=2).amax(dim=1)
    # beyond this many samples along an edge the triangle is larger than any grid; what is outside is cut off anyway
    steps = (edges * SAMPLES_PER_VOXEL).ceil().clamp(1, 1 << 14).long()
    for part, offset in _parts((steps + 1) * (steps + 2) // 2):
        across = steps[part].to(corners.dtype)
        # row r of the lattice has r + 1 samples, so sample k lies in the row with r (r + 1) / 2 <= k
        row = (((8 * offset.to(corners.dtype) + 1).sqrt() - 1) / 2).floor().long()
        row = row + ((row + 1) * (row + 2) // 2 <= offset).long() - (row * (row + 1) // 2 > offset).long()
        along = offset - row * (row + 1) // 2
        second, third = (row - along).to(corners.dtype) / across, along.to(corners.dtype) / across
        a, b, c = corners[part].unbind(dim=1)
        sample = a + second[:, None] * (b - a) + third[:, None] * (c - a)
        cell = sample.floor().long()
        inside = ((cell >= 0) & (cell < fine)).all(dim=1)
        x, y, z = cell[inside].unbind(dim=1)
        filled[((owner[part[inside]] * fine + x) * fine + y) * fine + z] = True
    return filled.view(count, fine, fine, fine)


def _parts(counts: Int[Tensor, " thing"]) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs (thing, 0 ... count - 1) for all things, in parts of bounded length."""
    ends = counts.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, PAIRS_AT_ONCE):
        pair = torch.arange(start, min(start + PAIRS_AT_ONCE, total), device=counts.device)
        thing = torch.searchsorted(ends, pair, right=True)
        yield thing, pair - (ends[thing] - counts[thing])

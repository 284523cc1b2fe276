"""Triangle meshes: an archive of many, SHREC17's tables, folders of files in folders of classes (data_shapes.md C)."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.formats.meshes import Mesh
from equivox.formats.toyshapes import read_mesh_set
from equivox.geometry.voxelize import fit_to_radius
from equivox.run.seeds import generator_for
from equivox.tasks.shapes.config import DataConfig, InputConfig
from equivox.tasks.shapes.data import Content, Points, Shape, Triangles

PARTS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


class MeshSetSource:
    """Meshes of one archive, radius 1 about the centre of their box.

    Parameters
    ----------
    path
        An archive such as ``toyshapes.npz``.
    config
        What a mesh becomes.
    data
        Upright, or each in its own fixed rotation.

    Raises
    ------
    InputError
        If the file cannot be used.
    """

    def __init__(self, path: Path, config: InputConfig, data: DataConfig) -> None:
        self._set = read_mesh_set(path)
        self._config, self._perturbed = config, data.perturbed
        self.name = path.name
        self.classes = self._set.classes
        self.shapes = tuple(
            Shape(
                id=mesh.name,
                label=int(self._set.labels[row]),
                split=PARTS.get(self._set.splits[int(self._set.split[row])], ""),
                sublabel=str(int(self._set.sublabels[row])),
            )
            for row, mesh in enumerate(self._set.meshes)
        )
        self.capacity = mesh_capacity(config, self._set.meshes)
        self._kept: dict[int, Content] = {}

    def content(self, index: int) -> Content:
        """One mesh as points or triangles."""
        if index not in self._kept:
            rotation = self._set.rotations[index] if self._perturbed else None
            self._kept[index] = mesh_content(self._set.meshes[index], self._config, rotation=rotation)
        return self._kept[index]


def mesh_content(mesh: Mesh, config: InputConfig, *, rotation: Float[Tensor, "3 3"] | None = None) -> Content:
    """A mesh, centred and brought to radius 1: points drawn on its surface (the same ones each time), or triangles."""
    centre, scale = fit_to_radius(mesh.used(), 1.0)
    vertices = ((mesh.vertices - centre) * scale).float()
    if rotation is not None:
        vertices = vertices @ rotation.to(vertices).mT
    if config.fill != "points":
        return Triangles(vertices, mesh.faces)
    draw = generator_for(0, "surface", len(mesh.faces), config.points)
    positions = surface_points(vertices[mesh.faces], config.points, generator=draw)
    return Points(positions, torch.zeros(config.points, dtype=torch.int64))


def mesh_capacity(config: InputConfig, meshes: tuple[Mesh, ...]) -> int:
    """Rows that every mesh is padded to: points, or the most vertices or faces of any."""
    if config.fill == "points":
        return config.points
    return max((max(len(mesh.vertices), len(mesh.faces)) for mesh in meshes), default=1)


def surface_points(
    corners: Float[Tensor, "face 3 3"], count: int, *, generator: torch.Generator
) -> Float[Tensor, "count 3"]:
    """Points on triangles, evenly over the area: stratified along it, uniform within each triangle.

    Parameters
    ----------
    corners
        The three corners (second axis) of every triangle.
    count
        Number of points.
    generator
        Source of the draws.
    """
    a, b, c = corners.double().unbind(dim=1)
    ends = torch.linalg.cross(b - a, c - a).norm(dim=1).cumsum(0)
    along = (
        torch.arange(count, dtype=torch.float64) + torch.rand(count, generator=generator, dtype=torch.float64)
    ) / count
    face = torch.searchsorted(ends, along * ends[-1]).clamp_max(len(ends) - 1)
    u, v = torch.rand(2, count, generator=generator, dtype=torch.float64)
    root = u.sqrt()[:, None]
    weight = v[:, None]
    points = (1 - root) * a[face] + root * (1 - weight) * b[face] + root * weight * c[face]
    return points.to(corners.dtype)

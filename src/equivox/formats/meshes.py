"""Triangle meshes on disk: OFF, OBJ, PLY and STL, checked for what they promise and never repaired in silence."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.errors import InputError, MissingExtraError, reason_of
from equivox.formats.archives import require_file
from equivox.formats.mesh_text import check_obj, check_off, check_ply, check_stl

MESH_ENDINGS = (".off", ".obj", ".ply", ".stl")
FARTHEST = 1e12
"""Beyond this no unit of length makes sense, and squares leave float32."""
OUTLIER_RATIO = 1e4
"""A vertex this many times farther from the median vertex than half of all vertices makes the rest one point."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """Triangles: ``vertices`` in the file's own unit, ``faces`` as rows of three vertex indices.

    Vertices that no face uses may be there; whatever measures the object must go by :meth:`used`.
    """

    vertices: Float[Tensor, "vertex 3"]
    faces: Int[Tensor, "face 3"]
    name: str = "mesh"

    def used(self) -> Float[Tensor, "corner 3"]:
        """Vertices that a face uses, each once."""
        return self.vertices[self.faces.reshape(-1).unique()]

    def corners(self) -> Float[Tensor, "face 3 3"]:
        """The three corners (second axis) of every triangle."""
        return self.vertices[self.faces]

    def area(self) -> float:
        """Sum of the areas of all triangles."""
        a, b, c = self.corners().double().unbind(dim=1)
        return float(torch.linalg.cross(b - a, c - a).norm(dim=-1).sum() / 2)

    def volume(self) -> float:
        """Signed volume; means something only for a closed surface with one orientation."""
        a, b, c = self.corners().double().unbind(dim=1)
        return float((a * torch.linalg.cross(b, c)).sum() / 6)


def read_mesh(path: Path | str, *, name: str | None = None) -> Mesh:
    """Read a mesh; polygons are cut into triangles, equal points merged, textures and colours left out.

    Raises
    ------
    InputError
        If the file is missing, empty, truncated or of another format; it has no vertex or no face; a coordinate is
        not finite or absurdly far; an index is out of range; or no triangle has an area.
    MissingExtraError
        If trimesh is not installed.
    """
    path = require_file(path)
    ending = path.suffix.lower()
    if ending not in MESH_ENDINGS:
        raise InputError(f"{path} is not a mesh by its name; give one of {', '.join(MESH_ENDINGS)}.")
    data = path.read_bytes()
    file_type, promised = ending[1:], 1
    if ending == ".off":
        check_off(path, data)
    elif ending == ".obj":
        check_obj(path, data)
    elif ending == ".stl":
        file_type = "stl" if check_stl(path, data) else "stl_ascii"
    else:
        promised = check_ply(path, data).get("face", 0)
        if not promised:
            raise InputError(f"{path} holds points and no faces; give a mesh, or read it as a point cloud.")
    vertices, faces = _triangles(path, data, file_type)
    if len(faces) < promised:
        raise InputError(f"{path}: only {len(faces)} of {promised} faces could be read; copy it again from its source.")
    mesh = _merged(vertices, faces, name or path.stem)
    require_mesh(mesh, where=str(path))
    return mesh


def require_mesh(mesh: Mesh, *, where: str) -> None:
    """Check that a mesh can be placed on a grid.

    Raises
    ------
    InputError
        If it has no face, a used coordinate is not finite or far away, an index is out of range, or its area is 0.
    """
    if mesh.faces.shape[0] == 0:
        raise InputError(f"{where} holds no faces; a mesh needs at least one triangle.")
    low, high = int(mesh.faces.min()), int(mesh.faces.max())
    if low < 0 or high >= mesh.vertices.shape[0]:
        wrong = low if low < 0 else high
        raise InputError(f"{where}: there is no vertex {wrong}; indices run 0 to {mesh.vertices.shape[0] - 1}.")
    require_points(mesh.used(), where=where)
    if mesh.area() <= 0:
        raise InputError(f"{where} has no triangle with an area; all of them are points or lines.")


def require_points(points: Float[Tensor, "point 3"], *, where: str) -> None:
    """Check that points are finite and belong together.

    Raises
    ------
    InputError
        If one is NaN, infinite, absurdly large, or so far from the others that these would share one voxel.
    """
    if not bool(torch.isfinite(points).all()):
        raise InputError(f"{where} has a coordinate that is NaN or infinite; replace or remove that point.")
    if float(points.abs().max()) > FARTHEST:
        raise InputError(
            f"{where} has a coordinate of {float(points.abs().max()):.3g}, far beyond any object; remove that point."
        )
    distance = (points - points.median(dim=0).values).double().norm(dim=-1)
    usual, farthest = float(distance.median()), float(distance.max())
    if usual > 0 and farthest > OUTLIER_RATIO * usual:
        raise InputError(
            f"{where} has a point {farthest / usual:.3g} times farther from the middle than half of all points; "
            f"remove it, or the object fits into one voxel."
        )


def require_trimesh(purpose: str) -> Any:
    """Import trimesh; MissingExtraError, which names the extra that brings it, if it is not installed."""
    try:
        import trimesh
    except ImportError as error:
        raise MissingExtraError("trimesh", "shapes", purpose) from error
    log = logging.getLogger("trimesh")  # it prints tracebacks of what it goes on from; our checks speak instead
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    return trimesh


def _triangles(path: Path, data: bytes, file_type: str) -> tuple[Any, Any]:
    """Vertices (float64) and faces (int64) as trimesh builds them, before any processing of its own."""
    trimesh = require_trimesh("reading meshes")
    options = {"skip_materials": True} if file_type == "obj" else {}
    try:
        loaded = trimesh.load_mesh(io.BytesIO(data), file_type=file_type, process=False, **options)
        vertices = np.asarray(loaded.vertices, dtype=np.float64).reshape(-1, 3)
        return vertices, np.asarray(getattr(loaded, "faces", np.zeros((0, 3))), dtype=np.int64).reshape(-1, 3)
    except MemoryError:
        raise
    except Exception as error:  # broken bodies meet many kinds of exception
        raise InputError(
            f"{path} cannot be read as {file_type} ({reason_of(error)}); copy it again from its source."
        ) from error


def _merged(vertices: Any, faces: Any, name: str) -> Mesh:
    """One row per distinct point; STL repeats each corner, OBJ each point per texture coordinate."""
    points, index = np.unique(vertices + 0.0, axis=0, return_inverse=True)
    if faces.size and int(faces.max()) < len(vertices) and int(faces.min()) >= 0:
        faces = index.reshape(-1)[faces]
    return Mesh(torch.from_numpy(points), torch.from_numpy(faces), name)

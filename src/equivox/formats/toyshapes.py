"""Archives of many labelled triangle meshes (``toyshapes.npz``): ten procedural classes with splits.

Each mesh comes upright (y up, box centre at 0, farthest vertex at radius 1) with one fixed rotation for the
"perturbed" version: ``v' = R v``. Parts overlap and are not united, so a mesh is not watertight as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.archives import read_arrays, require_file, require_indices, require_length, require_offsets
from equivox.formats.meshes import Mesh
from equivox.geometry.rotations import rotation_from_quaternion

REQUIRED = {"vertices": 2, "faces": 2, "vertex_offset": 1, "face_offset": 1, "label": 1, "sublabel": 1, "split": 1,
            "rotation_xyzw": 2, "class_names": 1, "split_names": 1}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MeshSet:
    """Meshes with class, sub-class (unique only together with the class), split, and one rotation each."""

    path: Path
    meshes: tuple[Mesh, ...]
    labels: Int[Tensor, " mesh"]
    sublabels: Int[Tensor, " mesh"]
    split: Int[Tensor, " mesh"]
    rotations: Float[Tensor, "mesh 3 3"]
    classes: tuple[str, ...]
    splits: tuple[str, ...]

    def __len__(self) -> int:
        """How many meshes."""
        return len(self.meshes)

    def rows(self, split: str) -> Int[Tensor, " row"]:
        """Indices of the meshes of a split; InputError if there is no such split."""
        if split not in self.splits:
            raise InputError(f"{self.path} has the splits {', '.join(self.splits)}; {split!r} is none of them.")
        return torch.nonzero(self.split == self.splits.index(split))[:, 0]


def read_mesh_set(path: Path | str) -> MeshSet:
    """Read an archive of meshes in ragged layout; face indices are local to their mesh.

    Raises
    ------
    InputError
        If the file is missing, broken or another kind of archive, or an index, offset or label leaves its range.
    """
    path = require_file(path)
    arrays = read_arrays(path, REQUIRED, what="a set of meshes")
    count = len(arrays["label"])
    lengths = {name: len(arrays[name]) for name in ("sublabel", "split", "rotation_xyzw")}
    require_length(path, lengths, count=count, of="meshes")
    for name in ("vertex", "face"):
        rows = arrays["vertices" if name == "vertex" else "faces"]
        if rows.shape[1] != 3:
            raise InputError(f"{path}, array {name}, has {rows.shape[1]} columns; 3 are needed.")
        require_offsets(path, f"{name}_offset", arrays[f"{name}_offset"], count=count, total=len(rows), of=name)
    require_indices(path, "label", arrays["label"], below=len(arrays["class_names"]), of="class_names")
    require_indices(path, "split", arrays["split"], below=len(arrays["split_names"]), of="split_names")
    if arrays["rotation_xyzw"].shape[1] != 4 or (np.linalg.norm(arrays["rotation_xyzw"], axis=1) < 1e-6).any():
        raise InputError(f"{path}, array rotation_xyzw, holds no quaternion (x, y, z, w) in some row.")
    vertices = torch.from_numpy(arrays["vertices"].astype(np.float32))
    faces = torch.from_numpy(arrays["faces"].astype(np.int64))
    classes = tuple(str(name) for name in arrays["class_names"].tolist())
    meshes = []
    seen = dict.fromkeys(classes, 0)
    for i in range(count):
        v0, v1 = (int(bound) for bound in arrays["vertex_offset"][i : i + 2])
        f0, f1 = (int(bound) for bound in arrays["face_offset"][i : i + 2])
        name = classes[int(arrays["label"][i])]
        require_indices(path, f"faces (mesh {i})", arrays["faces"][f0:f1], below=v1 - v0, of="the mesh")
        meshes.append(Mesh(vertices[v0:v1], faces[f0:f1], f"{name}_{seen[name]:03d}"))
        seen[name] += 1
    return MeshSet(
        path,
        tuple(meshes),
        torch.from_numpy(arrays["label"].astype(np.int64)),
        torch.from_numpy(arrays["sublabel"].astype(np.int64)),
        torch.from_numpy(arrays["split"].astype(np.int64)),
        rotation_from_quaternion(torch.from_numpy(arrays["rotation_xyzw"].astype(np.float64))),
        classes,
        tuple(str(name) for name in arrays["split_names"].tolist()),
    )

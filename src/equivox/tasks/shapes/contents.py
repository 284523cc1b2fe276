"""From a file to the objects in it, as a network with a given input takes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.archives import read_arrays, require_file
from equivox.formats.environments import environments_of
from equivox.formats.meshes import MESH_ENDINGS, read_mesh
from equivox.formats.nifti import SCAN_ENDINGS, read_volume
from equivox.formats.points import read_points
from equivox.formats.proteins import read_structure
from equivox.formats.structure_files import STRUCTURE_ENDINGS
from equivox.tasks.shapes.config import DataConfig, InputConfig
from equivox.tasks.shapes.data import Content, Grid, fit_volume
from equivox.tasks.shapes.source_cath import trace_content
from equivox.tasks.shapes.source_meshes import mesh_content
from equivox.tasks.shapes.source_residues import ResidueSource
from equivox.tasks.shapes.sources import archive_members, is_known_archive, open_source

Named = list[tuple[str, Content]]
WANTED = {
    "tetris": "a volume (.npy, .npz, .nii, .nii.gz)",
    "voxels": "a volume (.npy, .npz, .nii, .nii.gz)",
    "points": "a protein structure (.pdb, .cif) or a table of points (.xyz, .npy) in ångström",
    "mesh": "a mesh (.off, .obj, .ply, .stl)",
    "environment": "a protein structure with all atoms (.pdb, .cif)",
}
LEAST_ATOMS = 4
"""A chain with fewer C-alpha atoms is no domain."""


def contents_of(source: Path | str | Tensor, config: InputConfig) -> Named:
    """Objects of a file by their names within it; the name is empty where the file is one object.

    Parameters
    ----------
    source
        A file, or a volume (x, y, z) or (channel, x, y, z).
    config
        What the network takes.

    Raises
    ------
    InputError
        If the file cannot be read, or holds another kind of thing.
    """
    if isinstance(source, Tensor):
        _require(config.kind in ("tetris", "voxels"), "a tensor", config)
        return [("", _as_grid(source, "the tensor", config))]
    path = require_file(Path(source).expanduser())
    name = path.name.lower()
    if name.endswith(".npz") and is_known_archive(archive_members(path)):
        found = open_source(DataConfig(data=str(path)), config)
        return [(shape.id, found.content(index)) for index, shape in enumerate(found.shapes)]
    return _READERS[config.kind](path, name, config)


def _volume(path: Path, name: str, config: InputConfig) -> Named:
    if name.endswith(SCAN_ENDINGS):
        return [("", _as_grid(read_volume(path).data, str(path), config))]
    _require(name.endswith((".npy", ".npz")), str(path), config)
    if name.endswith(".npz"):
        arrays = read_arrays(path, {}, what="a volume")
        named = {key: array for key, array in arrays.items() if array.ndim >= 3}
        if len(named) != 1:
            raise InputError(f"{path} holds {len(named)} arrays of three or more axes; one volume is needed.")
        array = next(iter(named.values()))
    else:
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, EOFError, ValueError) as error:
            raise InputError(f"{path} is no whole .npy array ({error}); copy it again from its source.") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path} holds {array.dtype} values; numbers are needed.")
    return [("", _as_grid(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)), str(path), config))]


def _as_grid(volume: Tensor, where: str, config: InputConfig) -> Grid:
    """A volume with a channel axis on the network's grid."""
    if volume.ndim == 3:
        volume = volume[None]
    if volume.ndim != 4 or volume.shape[0] != config.channels:
        raise InputError(
            f"{where} has the shape {tuple(volume.shape)}; the network takes {config.channels} channel(s) of a volume "
            "(x, y, z)."
        )
    if not bool(torch.isfinite(volume).all()):
        raise InputError(f"{where} holds NaN or infinite values; replace them.")
    if not bool(volume.any()):
        raise InputError(f"{where} is empty (all zeros); there is nothing to classify.")
    return Grid(fit_volume(volume.float(), config.side))


def _trace(path: Path, name: str, config: InputConfig) -> Named:
    if name.endswith((".xyz", ".npy")):
        return [("", trace_content(read_points(path).positions.float(), config))]
    _require(name.endswith(STRUCTURE_ENDINGS), str(path), config)
    structure = read_structure(path)
    traces = [(chain.name, chain.trace().positions.float()) for chain in structure.chains]
    whole = [(label, positions) for label, positions in traces if len(positions) >= LEAST_ATOMS]
    if not whole:
        raise InputError(f"{path} has no chain with {LEAST_ATOMS} C-alpha atoms; a domain needs more.")
    return [(label, trace_content(positions, config)) for label, positions in whole]


def _mesh(path: Path, name: str, config: InputConfig) -> Named:
    _require(name.endswith(MESH_ENDINGS), str(path), config)
    return [("", mesh_content(read_mesh(path), config))]


def _residues(path: Path, name: str, config: InputConfig) -> Named:
    _require(name.endswith(STRUCTURE_ENDINGS), str(path), config)
    found = ResidueSource(environments_of(read_structure(path)), config, DataConfig(data=str(path)))
    return [(shape.id, found.content(index)) for index, shape in enumerate(found.shapes)]


_READERS: dict[str, Callable[[Path, str, InputConfig], Named]] = {
    "tetris": _volume, "voxels": _volume, "points": _trace, "mesh": _mesh, "environment": _residues,
}  # fmt: skip


def _require(fits: bool, what: str, config: InputConfig) -> None:
    if not fits:
        raise InputError(f"{what} is not what this model takes; give {WANTED[config.kind]}.")

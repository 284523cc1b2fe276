"""Where objects come from: `tetris`, the known ``.npz`` files, folders of files in folders of classes."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile, ZipFile

from equivox.errors import InputError
from equivox.tasks.shapes.config import DataConfig, InputConfig, Kind
from equivox.tasks.shapes.data import ShapeSource
from equivox.tasks.shapes.source_cath import CathSource
from equivox.tasks.shapes.source_meshes import MeshSetSource
from equivox.tasks.shapes.source_residues import ResidueSource
from equivox.tasks.shapes.source_tetris import TetrisSource
from equivox.tasks.shapes.source_volumes import MedMnistSource

CATH_KEYS = (frozenset({"ca", "cath"}), frozenset({"n_atoms", "split_start_indices"}))
RESIDUE_KEYS = frozenset({"atom_offset", "xyz"})
MESH_KEYS = frozenset({"vertices", "faces", "class_names"})
MEDMNIST_KEYS = frozenset({"train_images", "train_labels"})
HINTS: dict[Kind, str] = {
    "tetris": "--preset tetris",
    "voxels": "--preset shapes-equivox with --kind voxels",
    "points": "--preset cath-equivox",
    "mesh": "--preset shapes-equivox",
    "environment": "--preset residue-equivox",
}


def open_source(data: DataConfig, config: InputConfig) -> ShapeSource:
    """The objects that a configuration names, as a network with such an input takes them.

    Raises
    ------
    InputError
        If there are no such data, or they are of another kind than the input.
    """
    if data.data == "tetris":
        _require_kind("tetris", "pieces of Tetris", "tetris", config)
        return TetrisSource(config)
    path = Path(data.data).expanduser()
    if not path.exists():
        raise InputError(f"{path} does not exist; give an .npz file, a folder of class folders, or the word tetris.")
    if path.is_dir():
        from equivox.tasks.shapes.source_folder import FolderSource, require_fitting_folder

        require_fitting_folder(path, config)
        return FolderSource(path, config, data)
    names = archive_members(path)
    if any(keys <= names for keys in CATH_KEYS):
        _require_kind(str(path), "protein domains", "points", config)
        return CathSource(path, config, data)
    if names >= RESIDUE_KEYS:
        _require_kind(str(path), "residue environments", "environment", config)
        return ResidueSource.from_file(path, config, data)
    if names >= MESH_KEYS:
        _require_kind(str(path), "meshes", "mesh", config)
        return MeshSetSource(path, config, data)
    if names >= MEDMNIST_KEYS:
        _require_kind(str(path), "volumes", "voxels", config)
        return MedMnistSource(path, config)
    raise InputError(
        f"{path} holds {', '.join(sorted(names)[:6])}; known are CATH sets, residue environments, meshes, MedMNIST3D."
    )


def is_known_archive(names: set[str]) -> bool:
    """Whether an archive with such arrays is a set of objects that :func:`open_source` reads."""
    return any(keys <= names for keys in (*CATH_KEYS, RESIDUE_KEYS, MESH_KEYS, MEDMNIST_KEYS))


def archive_members(path: Path) -> set[str]:
    """Names of the arrays in an ``.npz`` archive.

    Raises
    ------
    InputError
        If it is no archive.
    """
    try:
        with ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (BadZipFile, OSError) as error:
        raise InputError(f"{path} is no whole .npz archive ({error}); copy it again from its source.") from error


def _require_kind(name: str, what: str, kind: Kind, config: InputConfig) -> None:
    if config.kind != kind:
        raise InputError(
            f"{name} holds {what}, the network's input is of the kind {config.kind!r}; use {HINTS[kind]} or other data."
        )

"""From what a user names to a list of shape files (meshes, point clouds, structures), with their labels where asked.

One bad name never stops the others: it comes back as an entry whose ``problem`` is the sentence to report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from equivox.errors import InputError
from equivox.formats.file_search import FileKind
from equivox.formats.meshes import MESH_ENDINGS
from equivox.formats.points import POINT_ENDINGS
from equivox.formats.scans import ScanInput
from equivox.formats.structure_files import STRUCTURE_ENDINGS
from equivox.formats.tables import read_header, read_table

SHAPE_ENDINGS = tuple(sorted({*MESH_ENDINGS, *POINT_ENDINGS, *STRUCTURE_ENDINGS}, key=lambda text: (-len(text), text)))
SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
Kind = Literal["mesh", "points", "structure"]


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """A file with its class and, where known, its split; or a line of a table without a file, and why."""

    path: Path
    label: str
    split: str = ""
    problem: str = ""


def stem_of(path: Path) -> str:
    """The file's name without its ending (``1abc.pdb.gz`` is ``1abc``); any other name whole."""
    for ending in SHAPE_ENDINGS:
        if path.name.lower().endswith(ending) and len(path.name) > len(ending):
            return path.name[: -len(ending)]
    return path.name


SHAPES = FileKind("shape", "mesh, point or structure files", tuple(sorted(SHAPE_ENDINGS)), stem_of)


def kind_of(path: Path) -> Kind:
    """What a file holds, by its ending; a PLY file without faces is for :func:`equivox.formats.points.read_points`.

    Raises
    ------
    InputError
        If the ending is of no known kind.
    """
    name = path.name.lower()
    if name.endswith(STRUCTURE_ENDINGS):
        return "structure"
    if name.endswith(".ply") and path.is_file() and not _ply_has_faces(path):
        return "points"
    if name.endswith(MESH_ENDINGS):
        return "mesh"
    if name.endswith(POINT_ENDINGS):
        return "points"
    raise InputError(f"{path} is no shape by its name; give one of {', '.join(sorted(SHAPE_ENDINGS))}.")


def find_shapes(inputs: Sequence[str | Path]) -> list[ScanInput]:
    """Expand files, folders (searched with their subfolders) and globs, in order; a file named twice comes once.

    Raises
    ------
    InputError
        If no input is given at all.
    """
    return SHAPES.find(inputs)


def labelled_files(folder: Path | str, table: Path | str | None = None) -> tuple[list[LabelledFile], list[Path]]:
    """Files below a folder with the class of each: from a table, or from the folders they lie in.

    Parameters
    ----------
    folder
        Without a table laid out as ``CLASS/file`` or, as ModelNet is, ``CLASS/{train,val,test}/file``.
    table
        CSV with the columns ``file`` (path below the folder, or the name without its ending) and ``label``, and
        ``split`` if there is one.

    Returns
    -------
    tuple
        One entry per line of the table (or per file in a class folder), some with a problem; and the files that have
        no label.

    Raises
    ------
    InputError
        If the folder or the table is missing or broken, or not one file has a label.
    """
    folder = Path(folder)
    files = SHAPES.require_folder(folder, "a folder of files")
    found, rest = _by_folder(folder, files) if table is None else _by_table(folder, files, Path(table))
    if not any(not entry.problem for entry in found):
        how = f"no line of {table} names a file of it" if table else "its files lie in no class folders"
        raise InputError(f"{folder}: no file has a label, since {how}.")
    return found, rest


def _by_folder(folder: Path, files: list[Path]) -> tuple[list[LabelledFile], list[Path]]:
    found, rest = [], []
    for path in files:
        parts = path.relative_to(folder).parts[:-1]
        if not parts:
            rest.append(path)
            continue
        split = SPLIT_FOLDERS.get(parts[-1].lower(), "") if len(parts) > 1 else ""
        found.append(LabelledFile(path, parts[0], split))
    return found, rest


def _by_table(folder: Path, files: list[Path], table: Path) -> tuple[list[LabelledFile], list[Path]]:
    has_split = "split" in read_header(table)
    by_name: dict[str, list[Path]] = {}
    for path in files:
        for name in {path.relative_to(folder).as_posix(), path.name, stem_of(path)}:
            by_name.setdefault(name, []).append(path)
    found, used = [], set()
    for row in read_table(table, required=("file", "label"), unique=("file",)):
        name, label = row.text("file"), row.text("label")
        split = row.cells["split"].strip() if has_split else ""
        matches = by_name.get(name, [])
        if len(matches) == 1:
            found.append(LabelledFile(matches[0], label, split))
            used.add(matches[0])
        elif matches:
            problem = f"{row.where}: {name} fits {len(matches)} files of {folder}; write the path below it."
            found.append(LabelledFile(folder / name, label, split, problem))
        else:
            problem = f"{row.where}: {folder} holds no file {name}; the label has nothing to stand on."
            found.append(LabelledFile(folder / name, label, split, problem))
    return found, [path for path in files if path not in used]


def _ply_has_faces(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(1 << 16).split(b"end_header", 1)[0]
    words = [line.split() for line in header.decode("ascii", "replace").splitlines()]
    return any(line[:2] == ["element", "face"] and line[2:3] != ["0"] for line in words)

"""Point clouds on disk: PLY, XYZ (bare numbers or with a chemical element in front) and NumPy arrays."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import InputError, reason_of
from equivox.formats.archives import Array, require_file
from equivox.formats.mesh_text import check_ply
from equivox.formats.meshes import require_points, require_trimesh

POINT_ENDINGS = (".ply", ".xyz", ".npy")
_SYMBOLS = (
    "H HE LI BE B C N O F NE NA MG AL SI P S CL AR K CA SC TI V CR MN FE CO NI CU ZN GA GE AS SE BR KR RB SR Y "
    "ZR NB MO TC RU RH PD AG CD IN SN SB TE I XE CS BA LA CE PR ND PM SM EU GD TB DY HO ER TM YB LU HF TA W RE "
    "OS IR PT AU HG TL PB BI PO AT RN FR RA AC TH PA U NP PU AM CM BK CF ES FM MD NO LR D "
)
ELEMENTS = frozenset(_SYMBOLS.split())


@dataclass(frozen=True, slots=True)
class PointCloud:
    """Points in the file's own unit; ``elements`` has one upper-case symbol per point, or nothing."""

    positions: Float[Tensor, "point 3"]
    elements: tuple[str, ...] = ()
    name: str = "points"


def read_points(path: Path | str, *, name: str | None = None) -> PointCloud:
    """Read a point cloud: ``.ply`` (faces are left out), ``.xyz``, or ``.npy`` with shape (points, 3 or more).

    Further columns (normals, colours) are left out. An XYZ file may begin with a count and a comment line, and each
    row with the symbol of an element.

    Raises
    ------
    InputError
        If the file is missing, empty, truncated or of another format; it holds no point; a coordinate is not finite
        or absurdly far; or a symbol is no chemical element.
    MissingExtraError
        If a PLY file is read and trimesh is not installed.
    """
    path = require_file(path)
    ending = path.suffix.lower()
    elements: tuple[str, ...] = ()
    if ending == ".npy":
        positions = _from_npy(path)
    elif ending == ".xyz":
        positions, elements = _from_xyz(path)
    elif ending == ".ply":
        positions = _from_ply(path)
    else:
        raise InputError(f"{path} is no point cloud by its name; give one of {', '.join(POINT_ENDINGS)}.")
    if len(positions) == 0:
        raise InputError(f"{path} holds no point; copy it again from its source.")
    points = torch.from_numpy(np.array(positions, dtype=np.float64))
    require_points(points, where=str(path))
    return PointCloud(points, elements, name or path.stem)


def _from_npy(path: Path) -> Array:
    try:
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path} is no whole .npy array ({error}); copy it again from its source.") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "iuf":
        shown = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise InputError(f"{path} holds {shown}; numbers of shape (points, 3) are needed.")
    return array[:, :3]


def _from_xyz(path: Path) -> tuple[Array, tuple[str, ...]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file; an .xyz file has one point a line.") from None
    promised, first = None, 0
    if lines and lines[0].split()[1:] == [] and lines[0].strip().isdigit():
        promised, first = int(lines[0]), 2  # a count, then a comment
    rows: list[list[float]] = []
    symbols: list[str] = []
    for number, line in enumerate(lines[first:], start=first + 1):
        words = line.split("#", 1)[0].replace(",", " ").replace(";", " ").split()
        if not words or (promised is not None and len(rows) == promised):
            continue
        if words[0][0].isalpha() and words[0].lower() not in ("nan", "inf"):
            symbol = words.pop(0).upper()
            if symbol not in ELEMENTS:
                raise InputError(f"{path}, line {number}: {symbol!r} is no chemical element; write C, N, O and so on.")
            symbols.append(symbol)
        try:
            rows.append([float(word) for word in words[:3]])
        except ValueError:
            rows.append([])
        if len(rows[-1]) != 3:
            raise InputError(f"{path}, line {number}, holds {line.strip()!r} where three coordinates belong.")
    if promised is not None and len(rows) < promised:
        raise InputError(f"{path} ends after {len(rows)} of {promised} points; copy it again from its source.")
    if symbols and len(symbols) != len(rows):
        raise InputError(f"{path} names an element in {len(symbols)} of {len(rows)} rows; name it in all or in none.")
    return np.array(rows, dtype=np.float64).reshape(-1, 3), tuple(symbols)


def _from_ply(path: Path) -> Array:
    data = path.read_bytes()
    count = check_ply(path, data)["vertex"]
    trimesh = require_trimesh("reading point clouds")
    try:
        loaded = trimesh.load(io.BytesIO(data), file_type="ply", process=False)
        vertices = np.asarray(getattr(loaded, "vertices", np.zeros((0, 3))), dtype=np.float64).reshape(-1, 3)
    except MemoryError:
        raise
    except Exception as error:  # broken bodies meet many kinds of exception
        raise InputError(
            f"{path} cannot be read as ply ({reason_of(error)}); copy it again from its source."
        ) from error
    if len(vertices) < count:
        raise InputError(f"{path}: only {len(vertices)} of {count} points could be read; copy it again.")
    return vertices

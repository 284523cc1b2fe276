"""Any transform file: told apart by content, read into one direction, written into any other format.

Everything here means ``moving_from_fixed`` in RAS mm: where a point of the fixed (reference) image lies in the moving
one, the direction in which images are resampled. A head pose ``world_from_head`` has the head as its fixed and the
scanner's world as its moving frame. ITK, X5, our json and npy hold that matrix; LTA and FSL hold its inverse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError, GeometryError, InputError
from equivox.formats.transforms.fsl import read_fsl, write_fsl
from equivox.formats.transforms.grid import Grid
from equivox.formats.transforms.hdf5 import HDF5_MAGIC, open_hdf5
from equivox.formats.transforms.itk import read_itk, write_itk
from equivox.formats.transforms.itk_hdf5 import read_itk_hdf5, write_itk_hdf5
from equivox.formats.transforms.itk_matlab import is_matlab, read_itk_matlab, write_itk_matlab
from equivox.formats.transforms.lta import read_lta, write_lta
from equivox.formats.transforms.npy import NPY_MAGIC, read_npy, write_npy
from equivox.formats.transforms.pose_json import read_pose_json, write_pose_json
from equivox.formats.transforms.rows import is_table, read_rows
from equivox.formats.transforms.x5 import read_x5, write_x5
from equivox.geometry.rotations import Pose

TransformFormat = Literal["itk", "lta", "fsl", "x5", "json", "npy"]
OUTPUT_ENDINGS: dict[TransformFormat, tuple[str, ...]] = {
    "itk": (".tfm", ".txt", ".mat", ".h5", ".hdf5"),
    "lta": (".lta",),
    "fsl": (".mat",),
    "x5": (".x5",),
    "json": (".json",),
    "npy": (".npy",),
}
HEAD, WORLD = "head", "world"


@dataclass(frozen=True, slots=True)
class TransformSet:
    """What one file holds: a transform, or one per frame of a series, between two frames.

    Parameters
    ----------
    path
        The file.
    format
        What it was.
    matrices
        ``moving_from_fixed`` in RAS mm, float64; None for a frame without a pose.
    fixed, moving
        Names of the two frames.
    named
        Whether the file itself names them. Foreign formats do not: head and world are taken.
    """

    path: Path
    format: str
    matrices: tuple[Float[Tensor, "4 4"] | None, ...]
    fixed: str = HEAD
    moving: str = WORLD
    named: bool = False

    def inverse(self) -> TransformSet:
        """The same transforms the other way: fixed and moving change places."""
        turned = tuple(None if matrix is None else torch.linalg.inv(matrix) for matrix in self.matrices)
        return replace(self, matrices=turned, fixed=self.moving, moving=self.fixed)

    def frame(self, index: int) -> TransformSet:
        """One frame alone, counted from 0.

        Raises
        ------
        InputError
            If there is no such frame, or it has no pose.
        """
        if not 0 <= index < len(self.matrices):
            raise InputError(
                f"{self.path} has {len(self.matrices)} pose(s); there is no frame {index} (counted from 0)."
            )
        if self.matrices[index] is None:
            raise InputError(f"{self.path} has no pose for frame {index}; choose another.")
        return replace(self, matrices=(self.matrices[index],))

    def poses(self) -> list[Pose | None]:
        """Rigid poses ``moving_from_fixed``.

        Raises
        ------
        InputError
            If a matrix is not rigid.
        """
        try:
            return [
                None if matrix is None else Pose.from_matrix(matrix, source=self.fixed, target=self.moving)
                for matrix in self.matrices
            ]
        except GeometryError as error:
            raise InputError(f"{self.path} holds no rigid pose: {error}") from error


def read_transforms(
    path: Path | str, *, moving: Grid | None = None, fixed: Grid | None = None, row: str | None = None
) -> TransformSet:
    """Read a transform of any known format, told apart by its content.

    ITK (``.tfm``, ``.txt``, ``.mat``, ``.h5``), FreeSurfer ``.lta``, FSL ``.mat``, X5, our ``.json`` and ``.npy``, and
    the rows of one input (``row``) in ``poses.csv`` or ``poses.json``.

    Raises
    ------
    InputError
        If the file is missing, of another format, or broken.
    ConfigError
        If it is FSL's and the grids of its two images are not given.
    MissingExtraError
        If it is an HDF5 file and h5py is not installed.
    """
    path = Path(path)
    kind = _kind_of(path)
    if kind in ("csv", "table"):
        return TransformSet(path, kind, tuple(read_rows(path, row)), named=True)
    if kind == "json":
        pose = read_pose_json(path)
        return TransformSet(path, kind, (pose.matrix(),), fixed=pose.source, moving=pose.target, named=True)
    if kind == "npy":
        return TransformSet(path, kind, tuple(read_npy(path)))
    if kind == "fsl":
        if moving is None or fixed is None:
            raise ConfigError(
                f"{path} is an FSL matrix, which means nothing without its two images; "
                f"give them by --reference (the head-frame image) and --moving (the scan)."
            )
        return TransformSet(path, kind, (read_fsl(path, moving=moving, fixed=fixed),))
    readers = {"itk": read_itk, "itk mat": read_itk_matlab, "itk h5": read_itk_hdf5, "lta": read_lta, "x5": read_x5}
    return TransformSet(path, kind.split()[0], (readers[kind](path),))


def output_format(path: Path | str, chosen: str | None = None) -> TransformFormat:
    """The format of an output file: by its ending, or as chosen (``.mat`` is ITK's and FSL's and must be chosen).

    Raises
    ------
    ConfigError
        If the ending says nothing, fits two formats, or another than the chosen one.
    """
    path = Path(path)
    ending = path.suffix.lower()
    fitting = [name for name in get_args(TransformFormat) if ending in OUTPUT_ENDINGS[name]]
    if chosen is None:
        if len(fitting) == 1:
            return fitting[0]
        known = ", ".join(dict.fromkeys(end for ends in OUTPUT_ENDINGS.values() for end in ends))
        if fitting:
            raise ConfigError(f"{path} may be ITK's or FSL's ({ending} is used by both); add --to itk or --to fsl.")
        raise ConfigError(f"{path} has an ending that names no format; use one of {known}.")
    if chosen not in fitting:
        wanted = OUTPUT_ENDINGS.get(chosen, ())  # type: ignore[call-overload]
        raise ConfigError(f"{path} does not end like a file of --to {chosen}; use {' or '.join(wanted)}.")
    return chosen  # type: ignore[return-value]


def write_transforms(
    path: Path | str,
    transforms: TransformSet,
    format: TransformFormat,
    *,
    moving: Grid | None = None,
    fixed: Grid | None = None,
) -> None:
    """Write a transform; a series fits into ``npy`` alone.

    Raises
    ------
    OutputError
        If the file cannot be written.
    ConfigError
        If a grid is missing (LTA and FSL need both), or a series is to go into a file for one.
    InputError
        If json, which keeps rotation and translation alone, is to hold a matrix that is not rigid.
    MissingExtraError
        If it is an HDF5 file and h5py is not installed.
    """
    path = Path(path)
    if format == "npy":
        write_npy(path, transforms.matrices)
        return
    if len(transforms.matrices) != 1:
        raise ConfigError(
            f"{transforms.path} has {len(transforms.matrices)} poses and a {format} file holds one; "
            f"choose one by --frame, or write .npy."
        )
    matrix = transforms.frame(0).matrices[0]
    assert matrix is not None  # frame() refuses it
    if format in ("lta", "fsl"):
        if moving is None or fixed is None:
            raise ConfigError(
                f"{path}: a {format} file describes its two images; give them by --reference (the head-frame image) "
                f"and --moving (the scan)."
            )
        (write_lta if format == "lta" else write_fsl)(path, matrix, moving=moving, fixed=fixed)
    elif format == "x5":
        write_x5(path, matrix, fixed=fixed)
    elif format == "json":
        pose = transforms.poses()[0]
        assert pose is not None
        write_pose_json(path, pose)
    else:
        writers = {".mat": write_itk_matlab, ".h5": write_itk_hdf5, ".hdf5": write_itk_hdf5}
        writers.get(path.suffix.lower(), write_itk)(path, matrix)


def _kind_of(path: Path) -> str:
    """What a file is, by its first bytes and, for text, its ending."""
    if not path.is_file():
        raise InputError(
            f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; give a transform or pose file."
        )
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check its rights.") from error
    if not head:
        raise InputError(f"{path} is empty (0 bytes); write it again.")
    ending = path.suffix.lower()
    if head.startswith(HDF5_MAGIC):
        with open_hdf5(path) as opened:
            return "x5" if "Format" in opened.attrs or ending == ".x5" else "itk h5"
    if head.startswith(NPY_MAGIC) or ending == ".npy":
        return "npy"
    if is_matlab(head):
        return "itk mat"
    if head.lstrip().startswith(b"#Insight Transform File") or ending == ".tfm":
        return "itk"
    if ending == ".json":
        return "table" if is_table(path) else "json"
    if ending in (".csv", ".lta"):
        return ending[1:]
    if ending == ".mat":
        return "fsl"
    raise InputError(
        f"{path} is no transform that can be read; give ITK's (.tfm, .mat, .h5), FreeSurfer's .lta, FSL's .mat, .x5, "
        f"our .json or .npy, or a poses.csv."
    )

"""X5 transforms (``.x5``, HDF5): the draft of BIDS as nitransforms writes it.

A linear transform is a 4x4 matrix in RAS mm that maps points of the reference (fixed) image to points of the moving
one: our matrix as it is. ``Domain``, if given, describes the grid of the reference.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.atomic import atomic_path
from equivox.formats.transforms.grid import Grid, require_transform
from equivox.formats.transforms.hdf5 import numbers_of, open_hdf5, require_h5py, text_of

FORMAT, VERSION = "X5", 1


def write_x5(path: Path | str, moving_from_fixed: Float[Tensor, "4 4"], *, fixed: Grid | None = None) -> None:
    """Write one affine transform, with the grid of the ``fixed`` (reference) image where it is known.

    Raises
    ------
    OutputError
        If the file cannot be written.
    MissingExtraError
        If h5py is not installed.
    ValueError
        If the matrix is not finite, affine and invertible.
    """
    h5py = require_h5py()
    matrix = require_transform(moving_from_fixed).numpy()
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["Format"] = FORMAT
        file.attrs["Version"] = np.uint16(VERSION)
        group = file.create_group("TransformGroup/0")
        for name, text in (("Type", "linear"), ("SubType", "affine"), ("Representation", "matrix")):
            group.attrs[name] = text
        group.attrs["ArrayLength"] = 1
        group.create_dataset("Transform", data=matrix)
        group.create_dataset("DimensionKinds", data=np.array([b"space", b"space", b"space", b"vector"]))
        if fixed is not None:
            domain = group.create_group("Domain")
            domain.create_dataset("Grid", data=np.uint8(1))
            domain.create_dataset("Size", data=np.array(fixed.shape))
            domain.create_dataset("Mapping", data=fixed.affine.numpy())


def read_x5(path: Path | str) -> Float[Tensor, "4 4"]:
    """Read ``moving_from_fixed`` (RAS mm, float64) of a file with one linear transform.

    Raises
    ------
    InputError
        If the file is missing, damaged, no X5 file, holds none or several transforms, one that is not linear, or a
        matrix that is not 4x4, finite, affine and invertible.
    MissingExtraError
        If h5py is not installed.
    """
    path = Path(path)
    with open_hdf5(path) as file:
        if text_of(file.attrs.get("Format", "")) != FORMAT:
            raise InputError(f"{path} is no X5 file (its attribute Format is missing or another).")
        groups = list(file["TransformGroup"].values())
        if len(groups) != 1:
            raise InputError(f"{path} holds {len(groups)} transforms; give a file with exactly one.")
        kind = text_of(groups[0].attrs["Type"])
        shape = tuple(int(size) for size in groups[0]["Transform"].shape)
        if kind != "linear" or shape not in ((4, 4), (1, 4, 4)):
            raise InputError(f"{path} holds a {kind} transform of shape {shape}; give a linear one with a 4x4 matrix.")
        matrix = torch.tensor(numbers_of(path, groups[0], "Transform"), dtype=torch.float64).reshape(4, 4)
    try:
        return require_transform(matrix)
    except ValueError as error:
        raise InputError(f"{path} holds no transform: {error}") from error

"""ITK transforms in HDF5 (``.h5``, ``.hdf5``): the numbers and the direction of the text file (``itk.py``).

``TransformGroup/<n>`` holds ``TransformType``, ``TransformParameters`` and ``TransformFixedParameters``. In a
composite, group 0 holds the type alone and groups 1, 2 ... n its members, applied last to first:
``M = M_1 M_2 ... M_n``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.atomic import atomic_path
from equivox.formats.transforms.hdf5 import numbers_of, open_hdf5, require_h5py, text_in
from equivox.formats.transforms.itk import AFFINE, itk_parameters, matrix_from_parameters

COMPOSITE = "CompositeTransform"


def write_itk_hdf5(path: Path | str, moving_from_fixed: Float[Tensor, "4 4"]) -> None:
    """Write one ``AffineTransform_double_3_3`` about the centre 0, every float64 as it is.

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
    parameters = itk_parameters(moving_from_fixed)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        group = file.create_group("TransformGroup/0")
        group.create_dataset("TransformType", data=[AFFINE], dtype=h5py.string_dtype("ascii"))  # ITK reads no other
        group.create_dataset("TransformParameters", data=np.array(parameters, dtype=np.float64))
        group.create_dataset("TransformFixedParameters", data=np.zeros(3))


def read_itk_hdf5(path: Path | str) -> Float[Tensor, "4 4"]:
    """Read ``moving_from_fixed`` (RAS mm, float64) of one linear transform, or of a composite of linear ones.

    Raises
    ------
    InputError
        If the file is missing, damaged, holds no transform, several without a composite, or one that is not linear.
    MissingExtraError
        If h5py is not installed.
    """
    path = Path(path)
    with open_hdf5(path) as file:
        if "TransformGroup" not in file:
            raise InputError(f"{path} holds no TransformGroup; give a transform written by ITK.")
        groups = [group for _, group in sorted(file["TransformGroup"].items(), key=lambda pair: int(pair[0]))]
        kinds = [text_in(path, group, "TransformType") for group in groups]
        if kinds and kinds[0].partition("_")[0] == COMPOSITE:
            groups, kinds = groups[1:], kinds[1:]
        elif len(groups) > 1:
            raise InputError(f"{path} holds {len(groups)} transforms side by side; give one, or a composite.")
        if not groups:
            raise InputError(f"{path} holds 0 transforms; give a file with one.")
        moving_from_fixed = torch.eye(4, dtype=torch.float64)
        for kind, group in zip(kinds, groups, strict=True):
            member = matrix_from_parameters(
                path,
                kind,
                numbers_of(path, group, "TransformParameters"),
                numbers_of(path, group, "TransformFixedParameters"),
            )
            moving_from_fixed = moving_from_fixed @ member
    return moving_from_fixed

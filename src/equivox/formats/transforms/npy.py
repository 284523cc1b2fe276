"""Matrices as NumPy arrays (``.npy``): (4, 4), or (T, 4, 4) for a series with NaN where a frame has no pose.

The matrix is ``moving_from_fixed`` in RAS mm; a head pose is ``world_from_head``, as ``pose predict`` writes it.
"""

from __future__ import annotations

import tokenize
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.atomic import atomic_path
from equivox.formats.transforms.grid import require_transform

NPY_MAGIC = b"\x93NUMPY"


def write_npy(path: Path | str, matrices: Sequence[Float[Tensor, "4 4"] | None]) -> None:
    """Write one matrix as (4, 4), several as (T, 4, 4); None becomes NaN.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    nothing = torch.full((4, 4), torch.nan, dtype=torch.float64)
    stacked = torch.stack([nothing if matrix is None else matrix.double() for matrix in matrices]).numpy()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, stacked if len(matrices) > 1 else stacked[0])


def read_npy(path: Path | str) -> list[Float[Tensor, "4 4"] | None]:
    """Read the matrices (float64) in order; None where a frame of a series has none.

    Raises
    ------
    InputError
        If the file is missing, no array of numbers, of another shape, or a matrix is not affine and invertible.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a .npy file.")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        shape, kind = tuple(array.shape), array.dtype.kind
    except (OSError, ValueError, EOFError, SyntaxError, OverflowError, TypeError, tokenize.TokenError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is no whole NumPy array ({reason}); write it again.") from error
    if shape[-2:] != (4, 4) or len(shape) not in (2, 3) or kind not in "iuf" or 0 in shape:
        raise InputError(
            f"{path} holds an array of shape {shape} and type {array.dtype}; (4, 4) or (T, 4, 4) is needed."
        )
    stacked = torch.from_numpy(np.array(array, dtype=np.float64)).reshape(-1, 4, 4)
    matrices: list[Float[Tensor, "4 4"] | None] = []
    for index, matrix in enumerate(stacked):
        if len(shape) == 3 and bool(matrix.isnan().all()):
            matrices.append(None)
            continue
        try:
            matrices.append(require_transform(matrix))
        except ValueError as error:
            where = f"{path}, frame {index}," if len(shape) == 3 else f"{path}"
            raise InputError(f"{where} holds no transform: {error}") from error
    return matrices

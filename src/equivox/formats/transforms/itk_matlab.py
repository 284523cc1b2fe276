"""ITK's binary transforms (``.mat``): ANTs' ``0GenericAffine.mat``, a MATLAB level-4 file.

One column of parameters, named after the type of the transform, and one named ``fixed`` (the centre): the numbers and
the direction of the text file (``itk.py``). FSL's files have the same ending and are text: :func:`is_matlab` tells.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.atomic import atomic_path
from equivox.formats.transforms.itk import AFFINE, itk_parameters, matrix_from_parameters

CENTER = "fixed"
LARGEST_COUNT = 4096
"""More numbers than any linear transform has; files with larger arrays are not read."""
NUMBER_TYPES = {0: "f8", 1: "f4"}
HEADER_SIZE = 20


def is_matlab(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is a MATLAB level-4 file of real, full arrays of floats."""
    return len(head) >= HEADER_SIZE and _header(head) is not None


def write_itk_matlab(path: Path | str, moving_from_fixed: Float[Tensor, "4 4"]) -> None:
    """Write ``AffineTransform_double_3_3`` about the centre 0, every float64 as it is.

    Raises
    ------
    OutputError
        If the file cannot be written.
    ValueError
        If the matrix is not finite, affine and invertible.
    """
    content = b""
    for name, numbers in ((AFFINE, itk_parameters(moving_from_fixed)), (CENTER, [0.0, 0.0, 0.0])):
        text = name.encode("ascii") + b"\0"
        content += (
            struct.pack("<5i", 0, len(numbers), 1, 0, len(text)) + text + np.array(numbers, dtype="<f8").tobytes()
        )
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def read_itk_matlab(path: Path | str) -> Float[Tensor, "4 4"]:
    """Read ``moving_from_fixed`` (RAS mm, float64); the transforms that ``read_itk`` knows.

    Raises
    ------
    InputError
        If the file is missing, no MATLAB level-4 file, truncated, holds none or several transforms, or one of another
        kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; give an ITK .mat file.")
    content, arrays, place = path.read_bytes(), dict[str, list[float]](), 0
    while place < len(content):
        header = _header(content[place : place + HEADER_SIZE])
        if header is None:
            raise InputError(f"{path} is no binary ITK transform (a MATLAB level-4 file); write it again with ITK.")
        order, code, count, length = header
        place += HEADER_SIZE
        name = content[place : place + length].split(b"\0")[0].decode("ascii", errors="replace")
        kind = np.dtype(order + NUMBER_TYPES[code])
        stop = place + length + count * kind.itemsize
        if stop > len(content):
            raise InputError(f"{path} is truncated ({len(content)} of {stop} bytes); copy it again from its source.")
        arrays[name] = np.frombuffer(content[place + length : stop], kind).astype(np.float64).tolist()
        place = stop
    center = arrays.pop(CENTER, [0.0, 0.0, 0.0])
    if len(arrays) != 1:
        raise InputError(f"{path} holds {len(arrays)} transforms; give a file with exactly one.")
    ((name, parameters),) = arrays.items()
    return matrix_from_parameters(path, name, parameters, center)


def _header(head: bytes) -> tuple[str, int, int, int] | None:
    """Byte order, code of the number type, count of numbers, and length of the name; None if it is no such header."""
    if len(head) < HEADER_SIZE:
        return None
    for order, thousands in (("<", 0), (">", 1)):
        kind, rows, columns, imaginary, length = struct.unpack(f"{order}5i", head[:HEADER_SIZE])
        number_type = (kind // 10) % 10
        whole = kind % 10 == 0 and kind // 100 % 10 == 0 and kind // 1000 == thousands and number_type in NUMBER_TYPES
        small = 0 <= rows <= LARGEST_COUNT and columns in (0, 1)  # ITK writes no centre as 0 x 0
        sane = small and imaginary == 0 and 1 < length <= 256
        if whole and sane:
            return order, number_type, rows * columns, length
    return None

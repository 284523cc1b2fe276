"""Opening transforms in HDF5 files: h5py where it is installed, and one sentence for what is broken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from equivox.errors import InputError, MissingExtraError

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
LARGEST_COUNT = 4096
"""More numbers than any linear transform has; larger arrays are not read."""


def require_h5py() -> Any:
    """Import h5py; raise MissingExtraError, which names the extra that brings it, if it is not installed."""
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("h5py", "mri", "reading and writing transforms in HDF5 (.h5, .x5)") from error
    return h5py


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """The file, open for reading; whatever h5py meets in it becomes one sentence.

    Raises
    ------
    InputError
        If the file is missing, no HDF5 file, damaged, or lacks what is looked for.
    MissingExtraError
        If h5py is not installed.
    """
    h5py = require_h5py()
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a transform file.")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError) as error:
        text = str(error).splitlines()[0].strip("'\". ") if str(error) else type(error).__name__
        raise InputError(f"{path} is no whole HDF5 transform file ({text}); write it again.") from error


def numbers_of(path: Path, group: Any, name: str) -> list[float]:
    """The numbers of a small data set in reading order.

    Raises
    ------
    InputError
        If there are more than any linear transform has, or no real numbers.
    """
    data = group[name]
    if data.dtype.kind not in "fiu":
        raise InputError(f"{path} holds no numbers in {name} (type {data.dtype}); write it again.")
    if data.size is None or data.size > LARGEST_COUNT:
        raise InputError(f"{path} holds {data.size} numbers in {name}; give a linear 3D transform.")
    return [float(number) for number in data[()].reshape(-1)]


def text_in(path: Path, group: Any, name: str) -> str:
    """The only string of a data set.

    Raises
    ------
    InputError
        If it holds something else; libhdf5 may crash where a damaged file makes it read such a thing as text.
    """
    data = group[name]
    if require_h5py().check_string_dtype(data.dtype) is None or data.size != 1:
        raise InputError(f"{path} holds no text in {name} (type {data.dtype}); write it again.")
    return text_of(data[()])


def text_of(value: Any) -> str:
    """Text of an attribute or of a data set with one string, whatever HDF5 kept it as.

    Raises
    ------
    ValueError
        If it is an array of several.
    """
    single = value.item() if isinstance(value, np.ndarray) else value
    return single.decode("utf-8", errors="replace") if isinstance(single, bytes) else str(single)

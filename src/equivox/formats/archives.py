"""NumPy archives (``.npz``) from strangers: every member checked, nothing unpickled, one sentence for what is wrong.

An archive decompresses a member at every access, so members are read once, here, and handed out as arrays.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from equivox.errors import InputError

Array = np.ndarray[Any, np.dtype[Any]]


def read_arrays(path: Path | str, required: Mapping[str, int], *, what: str) -> dict[str, Array]:
    """Read all members of an archive that must hold certain arrays.

    Parameters
    ----------
    path
        The ``.npz`` file.
    required
        Number of axes by name of member; others are read too.
    what
        What the file should be, for messages (``"a CATH set"``).

    Raises
    ------
    InputError
        If the file is missing, empty, truncated or no archive; a member is missing, holds Python objects, has
        another number of axes, or no finite numbers.
    """
    path = require_file(path)
    try:
        with path.open("rb") as file:  # ours to close, whatever numpy meets in it
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError(f"{path} holds one bare array; {what} is an .npz archive of named arrays.")
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
            archive.close()
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise InputError(
            f"{path} is no whole .npz archive ({_short(error)}); copy it again from its source."
        ) from error
    missing = [name for name in required if name not in arrays]
    if missing:
        raise InputError(
            f"{path} is not {what}: it holds {', '.join(sorted(arrays)) or 'nothing'} and lacks {', '.join(missing)}."
        )
    for name, axes in required.items():
        array = arrays[name]
        if array.ndim != axes:
            raise InputError(f"{path}, array {name}, has shape {array.shape}; {what} has {axes} axes there.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"{path}, array {name}, holds NaN or infinite numbers; replace or remove those entries.")
    return arrays


def require_file(path: Path | str) -> Path:
    """The path of a file that exists and is not empty; InputError otherwise."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path.")
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a file; give the file itself.")
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check its rights.") from error
    if not first:
        raise InputError(f"{path} is empty (0 bytes); copy it again from its source.")
    return path


def require_offsets(path: Path, name: str, offsets: Array, *, count: int, total: int, of: str) -> None:
    """Check that ragged rows ``offsets[i]:offsets[i + 1]`` cover ``total`` entries of ``of``, none empty.

    Raises
    ------
    InputError
        If there are not ``count`` + 1 of them, they do not grow, or they miss the ends.
    """
    good = offsets.shape == (count + 1,) and (np.diff(offsets) > 0).all() and offsets[0] == 0 and offsets[-1] == total
    if not good:
        raise InputError(
            f"{path}, array {name}, does not divide the {total} rows of {of} into {count} parts; the file is damaged."
        )


def require_indices(path: Path, name: str, values: Array, *, below: int, of: str) -> None:
    """Check that every value is an index 0 to ``below`` - 1 into ``of``; InputError with the value otherwise."""
    if values.dtype.kind not in "iu":
        raise InputError(f"{path}, array {name}, holds {values.dtype} values; whole numbers are needed.")
    if values.size and (int(values.min()) < 0 or int(values.max()) >= below):
        worst = int(values.max()) if int(values.max()) >= below else int(values.min())
        raise InputError(f"{path}, array {name}, holds {worst}; {of} has entries 0 to {below - 1}.")


def require_length(path: Path, lengths: Mapping[str, int], *, count: int, of: str) -> None:
    """Check that arrays have one entry per thing; InputError names the first that has not."""
    for name, length in lengths.items():
        if length != count:
            raise InputError(f"{path}, array {name}, has {length} entries for {count} {of}; the file is damaged.")


def _short(error: BaseException) -> str:
    """First line of what a library said, no longer than a line."""
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(". ")[:120]

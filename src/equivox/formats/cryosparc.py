"""CryoSPARC ``.cs`` files: NumPy structured arrays, joined over ``uid``, read without unpickling anything."""

from __future__ import annotations

import tokenize
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from equivox.errors import InputError
from equivox.formats.archives import require_file
from equivox.formats.atomic import atomic_path

MAGIC = b"\x93NUMPY"


def read_cs(path: Path | str, *, passthrough: Sequence[Path | str] = ()) -> np.ndarray:
    """Read a ``.cs`` table, with the columns of its passthrough files joined over ``uid``.

    Parameters
    ----------
    path
        The main table; the order of its rows is kept.
    passthrough
        Further tables, in any order of rows; a column that the main table has already is not taken.

    Raises
    ------
    InputError
        If a file is missing, empty, truncated, no ``.npy``, no table, holds pickled objects, lacks ``uid``, has a uid
        twice, or a passthrough lacks a uid of the main table.
    """
    table = _read_one(Path(path))
    for other in passthrough:
        table = _joined(Path(path), table, Path(other), _read_one(Path(other)))
    return table


def is_cs(path: Path | str) -> bool:
    """Whether a file begins as a ``.cs`` (NumPy) file does."""
    with Path(path).open("rb") as file:
        return file.read(6) == MAGIC


def write_cs(path: Path | str, table: np.ndarray) -> None:
    """Write a structured array as a ``.cs`` file, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(table), version=(1, 0), allow_pickle=False)


def fields_of(table: np.ndarray) -> tuple[str, ...]:
    """Names of the columns."""
    return tuple(table.dtype.names or ())


def texts_of(path: Path, table: np.ndarray, name: str) -> list[str]:
    """A column of bytes as text; a leading ``>`` (cryoSPARC's mark of a path in its project) is left out.

    Raises
    ------
    InputError
        If the column holds no text, or text with control characters: the file is damaged.
    """
    column = table[name]
    if column.ndim != 1 or column.dtype.kind not in "SU":
        raise InputError(f"{path}: {name} holds {column.dtype} values; text is needed.")
    texts = []
    for row, value in enumerate(column.tolist(), start=1):
        text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
        if any(ord(character) < 32 for character in text):
            raise InputError(f"{path}, row {row}: {name} is {text!r}, which is no path; the file is damaged.")
        texts.append(text.removeprefix(">"))
    return texts


def numbers_of(
    path: Path, table: np.ndarray, name: str, *, width: int = 1, positive: bool = False, most: float = 1e12
) -> Float64[np.ndarray, "..."]:
    """A column as finite numbers, one or ``width`` in a row.

    Raises
    ------
    InputError
        If it has another width, a number is not finite or absurdly large, or one that must be positive is not.
    """
    column = table[name]
    shape = (len(table),) if width == 1 else (len(table), width)
    if column.dtype.kind not in "iuf" or column.shape != shape:
        each = f"{width} numbers" if width > 1 else "one number"
        raise InputError(
            f"{path}: {name} holds {column.dtype} of shape {column.shape[1:]} in a row; {each} belong there."
        )
    values = column.astype(np.float64)
    good = np.isfinite(values) & (np.abs(values) <= most)
    if positive:
        good &= values > 0
    bad = np.flatnonzero(~good.reshape(len(values), -1).all(axis=1))
    if bad.size:
        what = "a positive number" if positive else "a usable number"
        raise InputError(f"{path}, row {bad[0] + 1}: {name} is {values[bad[0]]}, which is not {what}; remove the row.")
    return values


def _read_one(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    path = require_file(path)
    try:
        with path.open("rb") as file:
            magic = file.read(6)
            if magic != MAGIC:
                raise InputError(f"{path} is no cryoSPARC table (its first bytes are {magic!r}); give a .cs file.")
            file.seek(0)
            table = np.load(file, allow_pickle=False)
    except (OSError, EOFError, ValueError, SyntaxError, TypeError, KeyError, tokenize.TokenError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "allow_pickle" in text or "Object arrays" in text:
            raise InputError(
                f"{path} holds pickled Python objects, which could run code and are never opened; export it again."
            ) from error
        raise InputError(f"{path} is truncated or damaged ({text.rstrip('. ')}); copy it again.") from error
    if not isinstance(table, np.ndarray) or table.dtype.names is None:
        raise InputError(f"{path} holds one bare array; a cryoSPARC table has named columns.")
    table = table.reshape(-1)
    if "uid" not in table.dtype.names:
        raise InputError(f"{path} has no column uid; it has {', '.join(table.dtype.names[:8])}.")
    unique, counts = np.unique(table["uid"], return_counts=True)
    if counts.size and counts.max() > 1:
        uid = unique[int(counts.argmax())]
        rows = np.flatnonzero(table["uid"] == uid)
        raise InputError(f"{path}: rows {rows[0] + 1} and {rows[1] + 1} have the same uid {uid}; remove one.")
    return table


def _joined(
    path: Path, table: np.ndarray[Any, np.dtype[Any]], other_path: Path, other: np.ndarray[Any, np.dtype[Any]]
) -> np.ndarray[Any, np.dtype[Any]]:
    """The main table with further columns, row by row of equal uid."""
    order = np.argsort(other["uid"], kind="stable")
    place = np.searchsorted(other["uid"], table["uid"], sorter=order)
    place = order[np.minimum(place, len(order) - 1)] if len(order) else np.zeros(len(table), dtype=np.int64)
    missing = np.flatnonzero(other["uid"][place] != table["uid"]) if len(order) else np.arange(len(table))
    if missing.size:
        raise InputError(
            f"{other_path} lacks {missing.size} of the {len(table)} uids of {path}, the first "
            f"{table['uid'][missing[0]]}; give the passthrough file of the same job."
        )
    added = [name for name in fields_of(other) if name not in fields_of(table)]
    joined = np.empty(len(table), dtype=[*_described(table), *_described(other, added)])
    for name in fields_of(table):
        joined[name] = table[name]
    for name in added:
        joined[name] = other[name][place]
    return joined


def _described(table: np.ndarray[Any, np.dtype[Any]], names: Sequence[str] | None = None) -> list[Any]:
    """Columns as NumPy writes them down."""
    found = []
    for name in fields_of(table) if names is None else names:
        kind = table.dtype[name]
        base, shape = kind.subdtype if kind.subdtype is not None else (kind, ())
        found.append((name, base.str, shape) if shape else (name, base.str))
    return found

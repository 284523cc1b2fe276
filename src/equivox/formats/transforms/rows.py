"""Poses of one input in a table of many: ``poses.csv`` (numbers to 9 decimals), ``poses.json``, landmark tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.nifti import without_ending
from equivox.formats.poses import read_truth_csv
from equivox.formats.transforms.grid import require_transform

TABLE_SCHEMA = "equivox.poses/1"


def read_rows(path: Path | str, row: str | None = None) -> list[Float[Tensor, "4 4"] | None]:
    """``world_from_head`` (float64) of every frame of one input, in the order of the frames; None without a pose.

    Parameters
    ----------
    path
        ``poses.csv``, ``poses.json`` (every digit), or a table of landmark poses.
    row
        The input: its path as the table has it, its file name, or that without its ending. May be left out where the
        table knows a single input.

    Raises
    ------
    InputError
        If the table is missing or broken, has no such input or several, or a frame of it is missing.
    """
    path = Path(path)
    found = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
    names = list(dict.fromkeys(name for name, _, _ in found))
    chosen = names if row is None else _matching(names, row)
    if len(chosen) != 1:
        known = ", ".join(Path(name).name for name in names[:5]) + (" ..." if len(names) > 5 else "")
        state = "several inputs" if row is None else f"{len(chosen) or 'no'} inputs called {row}"
        raise InputError(f"{path} has {state} (it has {known or 'no rows'}); name one by --row.")
    frames = {frame: matrix for name, frame, matrix in found if name == chosen[0]}
    if sorted(frames) != list(range(len(frames))):
        raise InputError(
            f"{path} lacks frames of {chosen[0]} (it has {len(frames)}, up to {max(frames)}); write it again."
        )
    return [frames[index] for index in range(len(frames))]


def is_table(path: Path) -> bool:
    """Whether a JSON file is a table of poses rather than a single pose."""
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("schema") == TABLE_SCHEMA


def _matching(names: list[str], row: str) -> list[str]:
    """Inputs that are called so: by the whole path if one is, else by file name, else by stem."""
    stem = without_ending(Path(row).name)
    for alike in (
        [name for name in names if name == row],
        [name for name in names if Path(name).name == Path(row).name],
        [name for name in names if without_ending(Path(name).name) == stem],
    ):
        if alike:
            return alike
    return []


def _csv_rows(path: Path) -> list[tuple[str, int, Float[Tensor, "4 4"] | None]]:
    return [
        (row.file, row.frame, None if row.world_from_head is None else row.world_from_head.matrix())
        for row in read_truth_csv(path)
    ]


def _json_rows(path: Path) -> list[tuple[str, int, Float[Tensor, "4 4"] | None]]:
    """Rows of ``poses.json``; InputError for whatever is wrong with them."""
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        rows = []
        for entry in document["poses"]:
            stored = entry["world_from_head"]
            matrix = None if stored is None else require_transform(torch.tensor(stored, dtype=torch.float64))
            rows.append((str(entry["input"]), int(entry["frame"]), matrix))
    except (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise InputError(f"{path} is no table of poses ({type(error).__name__}: {error}); write it again.") from error
    return rows

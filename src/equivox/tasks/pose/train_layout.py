"""Which files belong together: folders of volumes and labels, and the table of annotated angles.

A volume, its label and its row of the table share a name up to the first dot. What does not match is listed. Loads no
torch.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from equivox.errors import ConfigError, InputError

NIFTI_ENDINGS = (".nii", ".nii.gz")
ROTATE_ENDINGS = (".nii", ".nii.gz", ".mgz", ".mgh", ".npz")
"""What the original lists for the training of rotations, and MGH."""
ANGLE_COLUMNS = ("rot_x", "rot_y", "rot_z")
ID_COLUMN, FOLD_COLUMN = "frame_id", "fold"
FOLDS = ("training", "validation")
SHOWN = 5
"""So many names of a list are shown in a message."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A volume and its label, by the name they share."""

    id: str
    image: Path
    label: Path


@dataclass(frozen=True, slots=True)
class Annotation:
    """One row of the table: the rotation from array axes to the canonical frame.

    Parameters
    ----------
    frame_id
        Name of the volume up to its first dot.
    angles_deg
        About the fixed axes x, then y, then z.
    fold
        ``"training"``, ``"validation"`` or None without that column.
    """

    frame_id: str
    angles_deg: tuple[float, float, float]
    fold: str | None


@dataclass(frozen=True, slots=True)
class Annotated:
    """A volume, its label and its angles."""

    pair: Pair
    angles_deg: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class RotateLayout:
    """The paths of a training of rotations.

    Parameters
    ----------
    training_images, training_labels, validation_images, validation_labels
        Folders; None where simulated stacks stand in.
    tables
        One table with a column ``fold``, or one for training and one for validation.
    results
        Last path, where one was given.
    """

    training_images: Path | None
    training_labels: Path | None
    validation_images: Path | None
    validation_labels: Path | None
    tables: tuple[Path, ...]
    results: Path | None


def sort_paths(paths: Sequence[Path], *, simulate: bool = False) -> RotateLayout:
    """Read the positional paths in either published form; a path that ends in ``.csv`` is a table.

    Four folders (training volumes, training labels, validation volumes, validation labels) in this order, one table
    (with the column ``fold``) or two (training, then validation) anywhere among them, and last the results' folder.
    With ``simulate`` the training folders, or all four with the tables, may be left out.

    Raises
    ------
    ConfigError
        If the number of folders or tables does not fit.
    """
    tables = tuple(path for path in paths if path.suffix.lower() == ".csv")
    folders = [path for path in paths if path.suffix.lower() != ".csv"]
    if simulate and len(folders) < 4:
        images, labels, results = split_folders(folders)
        if (images is None) != (not tables) or len(tables) > 1:
            raise ConfigError(
                f"got {len(folders)} folders and {len(tables)} .csv files; with --simulate give VAL_IMAGES VAL_LABELS "
                "and their annotation .csv, or neither."
            )
        return RotateLayout(None, None, images, labels, tables, results)
    if len(tables) not in (1, 2) or len(folders) not in (4, 5):
        raise ConfigError(
            f"got {len(folders)} folders and {len(tables)} .csv files; give TRAIN_IMAGES TRAIN_LABELS VAL_IMAGES "
            "VAL_LABELS, one annotation .csv with a column fold (or one for training and one for validation), and "
            "the results' folder."
        )
    training_images, training_labels, validation_images, validation_labels = folders[:4]
    return RotateLayout(
        training_images,
        training_labels,
        validation_images,
        validation_labels,
        tables=tables,
        results=folders[4] if len(folders) == 5 else None,
    )


def split_folders(folders: Sequence[Path]) -> tuple[Path | None, Path | None, Path | None]:
    """Validation volumes, validation labels, results: what up to three folders mean when training is simulated."""
    images, labels = (folders[0], folders[1]) if len(folders) >= 2 else (None, None)
    return images, labels, folders[-1] if len(folders) % 2 else None


def match_folders(images: Path, labels: Path, *, endings: Sequence[str] = NIFTI_ENDINGS) -> list[Pair]:
    """Pair volumes with labels by name; order: every ending in turn, names sorted within it.

    Raises
    ------
    InputError
        If a folder is missing or empty, two files share a name, or a name lacks its partner (they are listed).
    """
    found_images, found_labels = _by_name(images, endings), _by_name(labels, endings)
    without_label = [name for name in found_images if name not in found_labels]
    without_image = [name for name in found_labels if name not in found_images]
    if without_label or without_image:
        parts = [f"no label in {labels} for {_listed(without_label)}"] if without_label else []
        parts += [f"no volume in {images} for the label {_listed(without_image)}"] if without_image else []
        raise InputError(f"There is {' and '.join(parts)}; a volume and its label share the name up to the first dot.")
    return [Pair(name, path, found_labels[name]) for name, path in found_images.items()]


def read_annotations(path: Path, *, need_fold: bool) -> list[Annotation]:
    """Read a table with the columns ``frame_id, rot_x, rot_y, rot_z`` and, for both folds in one, ``fold``.

    Raises
    ------
    InputError
        If the file is missing or not a table, a column is missing or doubled, an id is empty or doubled, an angle is
        no finite number, or a fold has another name; with the line and what to do.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a table ({error}); give a .csv file in UTF-8.") from error
    lines = list(csv.reader(text.splitlines()))
    header = [name.strip() for name in lines[0]] if lines else []
    _require_columns(path, header, [ID_COLUMN, *ANGLE_COLUMNS, *([FOLD_COLUMN] if need_fold else [])])
    rows: list[Annotation] = []
    seen: dict[str, int] = {}
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise InputError(f"{path}, line {number}: {len(cells)} cells under {len(header)} columns; repair the line.")
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        name = row[ID_COLUMN]
        if not name:
            raise InputError(f"{path}, line {number}: {ID_COLUMN} is empty; write the volume's name there.")
        if name in seen:
            raise InputError(f"{path}: {ID_COLUMN} {name!r} stands in lines {seen[name]} and {number}; keep one.")
        seen[name] = number
        rows.append(Annotation(name, _angles(path, number, row), _fold(path, number, row)))
    if not rows:
        raise InputError(f"{path} has no rows below its header; add one per volume.")
    return rows


def annotate(
    pairs: Sequence[Pair], rows: Iterable[Annotation], *, fold: str, table: Path
) -> tuple[list[Annotated], list[str]]:
    """Give every volume of a fold its angles.

    Returns
    -------
    The annotated volumes, and the ids of rows of this fold that no volume belongs to.

    Raises
    ------
    InputError
        If a volume has no row (they are listed), or its row belongs to the other fold.
    """
    by_id = {row.frame_id: row for row in rows}
    missing = [pair.id for pair in pairs if pair.id not in by_id]
    if missing:
        raise InputError(f"{table} has no row for {_listed(missing)}; {ID_COLUMN} is the name up to the first dot.")
    other = [pair.id for pair in pairs if by_id[pair.id].fold not in (None, fold)]
    if other:
        raise InputError(
            f"{table} does not mark {_listed(other)} as {fold!r}, though the volume lies in the {fold} folder; "
            "correct the column fold or move the files."
        )
    names = {pair.id for pair in pairs}
    unused = [name for name, row in by_id.items() if name not in names and row.fold in (None, fold)]
    return [Annotated(pair, by_id[pair.id].angles_deg) for pair in pairs], unused


def name_of(path: Path) -> str:
    """File name up to its first dot."""
    return path.name.split(".", 1)[0]


def _by_name(folder: Path, endings: Sequence[str]) -> dict[str, Path]:
    """Files of a folder by name, hidden ones left out."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder that holds the files.")
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    found: dict[str, Path] = {}
    for ending in endings:
        for path in files:
            if not path.name.lower().endswith(ending):
                continue
            name = name_of(path)
            if name in found:
                raise InputError(
                    f"{found[name].name} and {path.name} in {folder} share the name {name!r}; rename or remove one."
                )
            found[name] = path
    if not found:
        raise InputError(f"{folder} holds no file that ends in {', '.join(endings)}; give the folder of the volumes.")
    return found


def _require_columns(path: Path, header: Sequence[str], wanted: Sequence[str]) -> None:
    doubled = sorted({name for name in header if name and header.count(name) > 1})
    if doubled:
        raise InputError(f"{path} has the column {doubled[0]!r} more than once; keep one.")
    missing = [name for name in wanted if name not in header]
    if not missing:
        return
    if missing == [FOLD_COLUMN]:
        raise InputError(
            f"{path} has no column 'fold'; add one with the word training or validation in each line, or give two "
            ".csv files, first for training, then for validation."
        )
    near = get_close_matches(missing[0], [*header, "filename"], n=1) or (["filename"] if "filename" in header else [])
    hint = f" (did you mean {near[0]!r}?)" if near and near[0] in header else ""
    raise InputError(
        f"{path} lacks the column {', '.join(missing)}{hint}; it has {', '.join(header) or 'none'}: "
        f"name them {', '.join(wanted)}."
    )


def _angles(path: Path, number: int, row: dict[str, str]) -> tuple[float, float, float]:
    angles = []
    for column in ANGLE_COLUMNS:
        try:
            angle = float(row[column])
        except ValueError:
            angle = math.nan
        if not math.isfinite(angle):
            raise InputError(f"{path}, line {number}: {column} is {row[column]!r}; give an angle in degrees.")
        angles.append(angle)
    return (angles[0], angles[1], angles[2])


def _fold(path: Path, number: int, row: dict[str, str]) -> str | None:
    if FOLD_COLUMN not in row:
        return None
    if row[FOLD_COLUMN] not in FOLDS:
        raise InputError(f"{path}, line {number}: fold is {row[FOLD_COLUMN]!r}; write training or validation.")
    return row[FOLD_COLUMN]


def _listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name) for name in names[:SHOWN]) + more

"""Everyday image files (PNG, JPEG, TIFF …) and folders of them in classes.

One bad file never stops the others: it comes back as an entry whose ``problem`` is the sentence to report.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.archives import require_file
from equivox.formats.file_search import FileKind
from equivox.formats.scans import ScanInput
from equivox.formats.tables import read_header, read_table

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm")
PICTURES = FileKind("image", "image files", PICTURE_ENDINGS, attrgetter("stem"))
SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L")


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """A file with its class and, where known, its part; or a line of a table without a file, and why."""

    path: Path
    label: str
    split: str = ""
    problem: str = ""


def read_picture(source: Path | bytes, *, channels: Literal[1, 3] = 3, name: str = "") -> UInt8[Tensor, "channel y x"]:
    """Read one image as grey (1 channel) or colour (3), 8 bits; row 0 is the top.

    The orientation that a camera noted is applied, transparency is dropped, 16 bits are divided by 257.

    Parameters
    ----------
    source
        A file, or its content.
    channels
        1 or 3.
    name
        For messages, where ``source`` is content.

    Raises
    ------
    InputError
        If it is missing, empty, truncated, no image, or holds numbers that are no grey values.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    where = name if isinstance(source, bytes) else str(require_file(source))
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DeprecationWarning)
            with Image.open(opened) as image:
                image.load()
                if image.mode == "F":
                    raise InputError(f"{where} holds floating-point numbers; save it with 8 or 16 bits first.")
                upright = ImageOps.exif_transpose(image) or image
                if upright.mode in SIXTEEN_BIT:
                    grey = torch.frombuffer(bytearray(upright.convert("I").tobytes()), dtype=torch.int32)
                    levels = (grey.clamp(0, 65535) // 257).to(torch.uint8).reshape(1, upright.height, upright.width)
                    return levels.expand(channels, -1, -1).contiguous()
                plain = upright.convert("RGB" if channels == 3 else "L")
                raw = torch.frombuffer(bytearray(plain.tobytes()), dtype=torch.uint8)
                return raw.reshape(plain.height, plain.width, channels).permute(2, 0, 1).contiguous()
    except UnidentifiedImageError as error:
        raise InputError(f"{where} is no image; give one of {', '.join(PICTURE_ENDINGS)}.") from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, Image.DecompressionBombError, Warning) as error:
        raise InputError(f"{where} is a damaged image ({_short(error)}); copy it again from its source.") from error


def find_pictures(inputs: Sequence[str | Path]) -> list[ScanInput]:
    """Expand files, folders (searched with their subfolders) and globs, in order; a file named twice comes once.

    Raises
    ------
    InputError
        If no input is given at all.
    """
    return PICTURES.find(inputs)


def labelled_pictures(folder: Path, table: Path | None = None) -> tuple[list[LabelledPicture], list[str]]:
    """Images below a folder with the class of each, and sentences on what has none.

    Parameters
    ----------
    folder
        Without a table laid out as ``CLASS/file``, ``PART/CLASS/file`` or ``CLASS/PART/file``; parts are called
        train, val (or validation) and test.
    table
        CSV with the columns ``file`` (path below the folder, or the name with or without its ending) and ``label``,
        and ``split`` if there is one.

    Raises
    ------
    InputError
        If the folder or the table is missing or broken, or no image has a label.
    """
    files = PICTURES.require_folder(folder, "a folder of images")
    if table is not None:
        rows = [
            (row.where, row.text("file"), row.text("label"), row.cells.get("split", "").strip())
            for row in read_table(table, required=("file", "label"), unique=("file",))
        ]
        return match_rows(folder, files, rows, table)
    found, problems = [], []
    for path in files:
        parts = path.relative_to(folder).parts[:-1]
        if not parts:
            problems.append(f"{path} lies in no class folder.")
            continue
        label, split = parts[0], ""
        if len(parts) > 1 and parts[0].lower() in SPLIT_FOLDERS:
            label, split = parts[1], SPLIT_FOLDERS[parts[0].lower()]
        elif len(parts) > 1:
            split = SPLIT_FOLDERS.get(parts[1].lower(), "")
        found.append(LabelledPicture(path, label, split))
    if found and {one.label.lower() for one in found} <= set(SPLIT_FOLDERS):
        raise InputError(
            f"{folder}: its folders are called {', '.join(sorted({one.label for one in found}))}, which are parts, not "
            f"classes; put a folder per class into each."
        )
    if not found:
        raise InputError(f"{folder}: no image has a label, since none lies in a class folder.")
    return found, problems + _empty_classes(folder, found)


def match_rows(
    folder: Path, files: Sequence[Path], rows: Sequence[tuple[str, str, str, str]], table: Path
) -> tuple[list[LabelledPicture], list[str]]:
    """Images of a table's rows (where, file, label, split).

    Raises
    ------
    InputError
        If no row names an image of the folder, or a part is unknown.
    """
    by_name: dict[str, list[Path]] = {}
    for path in files:
        for name in {path.relative_to(folder).as_posix(), path.name, path.stem}:
            by_name.setdefault(name, []).append(path)
    found, problems, used = [], [], set()
    for where, name, label, split in rows:
        if split and split.lower() not in SPLIT_FOLDERS:
            raise InputError(f"{where}: split {split!r} is unknown; write train, validation or test, or leave it out.")
        matches = by_name.get(name, [])
        if len(matches) == 1:
            found.append(LabelledPicture(matches[0], label, SPLIT_FOLDERS.get(split.lower(), "")))
            used.add(matches[0])
        elif matches:
            problems.append(f"{where}: {name} fits {len(matches)} files of {folder}; write the path below it.")
        else:
            problems.append(f"{where}: {folder} holds no image {name}; the label has nothing to stand on.")
    if not found:
        raise InputError(
            f"{folder}: no line of {table} names an image of it, for example {problems[0] if problems else ''}"
        )
    problems += [f"{path} has no line in {table}." for path in files if path not in used]
    return found, problems


def table_header(table: Path) -> list[str]:
    """Columns of a table."""
    return list(read_header(table))


def _empty_classes(folder: Path, found: Sequence[LabelledPicture]) -> list[str]:
    """Class folders without an image."""
    known = {one.label for one in found}
    places = [child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")]
    classes = []
    for place in places:
        if place.name.lower() in SPLIT_FOLDERS and any(one.split for one in found):
            classes += [child for child in place.iterdir() if child.is_dir() and not child.name.startswith(".")]
        else:
            classes.append(place)
    return [
        f"{place} holds no image: the class {place.name!r} is left out."
        for place in sorted(classes)
        if place.name not in known
    ]


def _short(error: BaseException) -> str:
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(". ")[:120]

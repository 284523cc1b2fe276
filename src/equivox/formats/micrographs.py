"""Micrographs from MRC, TIFF and PNG files, with their pixel size in ångström, memory-mapped where the file allows it.

Pixels are ``[y, x]``, row 0 the first row of the file, never flipped and never scaled: coordinates on a micrograph
are 0-based pixel centres of this array. A pixel size is None where the file does not say one; nothing here takes it
as 1.
"""

from __future__ import annotations

import glob
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from equivox.errors import ConfigError, InputError, MissingExtraError, reason_of
from equivox.formats.archives import require_file
from equivox.formats.mrc import is_mrc_name, read_mrc, require_finite
from equivox.formats.mrc_header import LARGEST_ANGSTROM, SMALLEST_ANGSTROM
from equivox.formats.scans import missing_sentence, without_repeats

TIFF_ENDINGS = (".tif", ".tiff")
PNG_ENDINGS = (".png",)
MRC_MICROGRAPH_ENDINGS = (".mrc", ".mrc.gz", ".mrc.bz2", ".mrcs", ".ali")
MICROGRAPH_ENDINGS = (*MRC_MICROGRAPH_ENDINGS, *TIFF_ENDINGS, *PNG_ENDINGS)
MOVIE_ENDINGS = (".eer", ".gain")
FOREIGN_ENDINGS = (".dm3", ".dm4", ".ser", ".emd", ".jpg", ".jpeg", ".hdf", ".h5")
UNIT_LENGTHS_ANGSTROM = {2: 2.54e8, 3: 1e8}
"""Inch and centimetre of TIFF's ResolutionUnit, in Å."""
SMALLEST_SIDE_PX = 16
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Micrograph:
    """One image with its pixel size.

    Parameters
    ----------
    name
        The path as it was given.
    pixels
        ``[y, x]`` in the file's own type; read only; memory-mapped for plain MRC and most TIFF files.
    pixel_size_angstrom
        Edge of a pixel; None where neither the caller nor the file says it.
    warnings
        Sentences about what is doubtful.
    """

    name: str
    path: Path
    pixels: Shaped[np.ndarray, "y x"]
    pixel_size_angstrom: float | None
    warnings: tuple[str, ...]

    def require_pixel_size(self) -> float:
        """The pixel size [Å]; InputError that says how to give it where it is unknown."""
        if self.pixel_size_angstrom is None:
            raise InputError(
                f"{self.name}: the pixel size is unknown; give it in Å, for example --pixel-size-angstrom 1.5."
            )
        return self.pixel_size_angstrom


@dataclass(frozen=True, slots=True)
class MicrographInput:
    """One file to work on, or one name that led to none (``problem`` says why).

    ``name`` is the path as given; ``below`` is its part below the folder that was searched (or the file's name),
    which distinguishes files of one name in different folders.
    """

    name: str
    path: Path
    below: str
    problem: str = ""


def open_micrograph(path: Path | str, *, pixel_size_angstrom: float | None = None) -> Micrograph:
    """Open a micrograph.

    Parameters
    ----------
    path
        ``.mrc`` (also ``.mrc.gz``, ``.mrc.bz2``), ``.tif``, ``.tiff`` or ``.png``.
    pixel_size_angstrom
        Overrides what the file says.

    Raises
    ------
    InputError
        If the file is missing or damaged, holds a stack, a movie, a volume, a colour picture or samples that are no
        numbers.
    ConfigError
        If ``pixel_size_angstrom`` is no plausible length.
    MissingExtraError
        If a TIFF is given and tifffile is not installed.
    """
    name = str(path)
    if pixel_size_angstrom is not None:
        require_plausible_pixel_size(pixel_size_angstrom)
    path = require_file(path)
    lower = path.name.lower()
    if lower.endswith(MOVIE_ENDINGS):
        raise InputError(f"{name} is a movie; give the motion-corrected micrograph (.mrc).")
    if lower.endswith(TIFF_ENDINGS):
        pixels, found, notes = _read_tiff(path)
    elif lower.endswith(PNG_ENDINGS):
        pixels, found, notes = _read_png(path), None, []
    elif is_mrc_name(path):
        pixels, found, notes = _read_mrc(path)
    elif lower.endswith(FOREIGN_ENDINGS):
        raise InputError(f"{name} is of a kind that is not read; convert it to MRC or TIFF (e2proc2d does).")
    else:
        raise InputError(f"{name} is no micrograph by its name; readable are {', '.join(MICROGRAPH_ENDINGS)}.")
    if min(pixels.shape) < SMALLEST_SIDE_PX and pixels.size < SMALLEST_SIDE_PX**2:
        notes.append(f"{name} has only {pixels.shape[1]} x {pixels.shape[0]} pixels.")
    if pixels.size and _is_constant(pixels):
        notes.append(f"{name} is empty: every pixel has the value {float(pixels.flat[0]):g}.")
    if pixel_size_angstrom is not None:
        notes = [text for text in notes if "--pixel-size-angstrom" not in text]
        if found is not None and abs(found - pixel_size_angstrom) > 0.01 * pixel_size_angstrom:
            notes.append(f"{name} says {found:.4g} Å a pixel in its header; {pixel_size_angstrom:g} Å as given.")
    elif found is None and not any("--pixel-size-angstrom" in text for text in notes):
        notes.append(f"{name} says no pixel size; give it in Å, for example --pixel-size-angstrom 1.5.")
    elif found == 1.0:
        notes.append(
            f"{name} says exactly 1 Å a pixel, which programs also write for an unknown size; "
            f"if it is not 1 Å, give --pixel-size-angstrom."
        )
    return Micrograph(name, path, pixels, found if pixel_size_angstrom is None else pixel_size_angstrom, tuple(notes))


def require_plausible_pixel_size(pixel_size_angstrom: float) -> None:
    """ConfigError unless the number can be the edge of a pixel [Å]."""
    if not (math.isfinite(pixel_size_angstrom) and SMALLEST_ANGSTROM <= pixel_size_angstrom <= LARGEST_ANGSTROM):
        raise ConfigError(
            f"--pixel-size-angstrom is {pixel_size_angstrom:g}; pixels are {SMALLEST_ANGSTROM:g} to "
            f"{LARGEST_ANGSTROM:g} Å wide."
        )


def find_micrographs(inputs: Sequence[str | Path]) -> list[MicrographInput]:
    """Expand files, folders and globs to micrographs, in the order given, each file once.

    A folder gives its own micrographs sorted by name, or, if it has none itself, those of all folders below it. A
    name that leads to nothing comes back as an entry with a ``problem``, so that the others are done.

    Raises
    ------
    InputError
        If no input is given at all.
    """
    if not inputs:
        raise InputError("No micrograph was given; name files, folders, or globs in quotes.")
    return without_repeats(entry for given in inputs for entry in _expand(str(given)))


def _is_constant(pixels: Array) -> bool:
    """Whether all pixels are equal; the first row that differs ends the search."""
    first = pixels[0, 0]
    return all(bool((row == first).all()) for row in pixels)


def _expand(text: str) -> list[MicrographInput]:
    """All micrographs behind one input, or one entry with a problem."""
    path = Path(text).expanduser()
    if path.is_dir():
        files = _micrographs_in(sorted(path.iterdir())) or _micrographs_in(sorted(path.rglob("*")))
        if not files:
            problem = f"{path} holds no micrograph ({', '.join(MICROGRAPH_ENDINGS)}); check the folder."
            return [MicrographInput(text, path, path.name, problem)]
        return [MicrographInput(str(file), file, file.relative_to(path).as_posix()) for file in files]
    if path.exists() or not glob.has_magic(text):
        return [MicrographInput(text, path, path.name, "" if path.exists() else missing_sentence(path))]
    matches = _micrographs_in([Path(match) for match in sorted(glob.glob(str(path), recursive=True))])
    if not matches:
        return [MicrographInput(text, path, path.name, f"No micrograph matches {text!r}; check the pattern.")]
    return [MicrographInput(str(file), file, file.name) for file in matches]


def _micrographs_in(paths: Sequence[Path]) -> list[Path]:
    """Micrograph files among ``paths``, without hidden and unfinished ones; stacks (``.mrcs``) only when named."""
    return [
        path
        for path in paths
        if path.name.lower().endswith(MICROGRAPH_ENDINGS)
        and not path.name.lower().endswith(".mrcs")
        and not path.name.startswith(".")
        and path.is_file()
    ]


def _read_mrc(path: Path) -> tuple[Array, float | None, list[str]]:
    image = read_mrc(path, check_finite=False)
    pixels = image.data
    if pixels.ndim == 3 and len(pixels) == 1:
        pixels = pixels[0]
    if pixels.ndim != 2:
        what = "images" if image.kind == "stack" else "sections"
        raise InputError(
            f"{path} holds {len(pixels)} {what} of {pixels.shape[2]} x {pixels.shape[1]} pixels: a {image.kind}, "
            f"no micrograph; give the motion-corrected image."
        )
    require_finite(pixels, str(path))
    return pixels, image.pixel_size_angstrom, list(image.warnings)


def _read_tiff(path: Path) -> tuple[Array, float | None, list[str]]:
    try:
        import tifffile
    except ImportError as error:
        raise MissingExtraError("tifffile", "cryo", "reading TIFF micrographs") from error
    try:
        with tifffile.TiffFile(path) as file:
            page, count = file.pages[0], len(file.pages)
            shape, kind = page.shape, page.dtype
            found = _tiff_pixel_size(page)
            if count == 1 and len(shape) == 2 and kind is not None:
                mappable = page.is_memmappable
                pixels = tifffile.memmap(path, mode="r") if mappable else page.asarray()
    except (OSError, ValueError, IndexError, KeyError, tifffile.TiffFileError) as error:
        raise InputError(f"{path} cannot be read ({reason_of(error)}); copy it again from its source.") from error
    if count > 1:
        raise InputError(f"{path} holds {count} images: a movie or stack; give the motion-corrected micrograph.")
    if len(shape) != 2 or kind is None or kind.kind not in "iuf":
        raise InputError(f"{path} is a picture of shape {shape} and type {kind}; a grey image is needed.")
    require_finite(pixels, str(path))
    return pixels, found, []


def _tiff_pixel_size(page: Any) -> float | None:
    """Pixel size [Å] by the resolution tags; None if they say something else (dots of a printer)."""
    tags = page.tags
    if "XResolution" not in tags or "ResolutionUnit" not in tags:
        return None
    top, bottom = tags["XResolution"].value
    length = UNIT_LENGTHS_ANGSTROM.get(int(tags["ResolutionUnit"].value))
    if length is None or not top or not bottom:
        return None
    size = length * bottom / top
    return float(f"{size:.7g}") if SMALLEST_ANGSTROM <= size <= LARGEST_ANGSTROM else None


def _read_png(path: Path) -> Array:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings(), Image.open(path, formats=("PNG",)) as picture:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large detectors are no attack
            mode = picture.mode
            pixels = np.asarray(picture) if mode in ("L", "I;16", "I;16B", "I", "F") else None
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as error:
        raise InputError(f"{path} cannot be read ({reason_of(error)}); copy it again from its source.") from error
    if pixels is None:
        raise InputError(f"{path} is a colour or palette picture (mode {mode}); a grey image is needed.")
    return pixels

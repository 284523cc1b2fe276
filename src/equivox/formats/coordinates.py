"""Particle coordinates on micrographs, from the files of topaz, RELION, EMAN, crYOLO, cryoSPARC and plain tables.

Inside, a coordinate is the centre of a particle in pixels of the micrograph that the file was made for: 0-based pixel
centres, x along a row, y from row 0 of the file on, never flipped. What a program means by its own numbers (corners,
fractions) is converted here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64

from equivox.errors import InputError
from equivox.formats.archives import require_file

FARTHEST_PX = 1e7
CoordinateFormat = Literal["topaz", "csv", "star", "relion", "box", "cbox", "cs", "json"]


@dataclass(frozen=True, slots=True, eq=False)
class Coordinates:
    """Picks on one or many micrographs.

    Parameters
    ----------
    path
        The file that they come from (for messages).
    format
        What kind of file that was.
    micrograph
        Name for each pick as the file has it; where a file names none, its own stem.
    x_px, y_px
        Centres, 0-based pixel centres.
    score
        Higher is better; None where the file has none.
    box_px
        Width and height of each pick's box or circle; None where the file has none.
    rot_tilt_psi_deg
        RELION's angles, NaN where unset; None where the file has none.
    columns
        Further columns as text, by name.
    warnings
        Sentences about what had to be assumed or left out.
    """

    path: Path
    format: CoordinateFormat
    micrograph: tuple[str, ...]
    x_px: Float64[np.ndarray, " pick"]
    y_px: Float64[np.ndarray, " pick"]
    score: Float64[np.ndarray, " pick"] | None = None
    box_px: Float64[np.ndarray, "pick 2"] | None = None
    rot_tilt_psi_deg: Float64[np.ndarray, "pick 3"] | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x_px)

    def select(self, indices: Sequence[int] | np.ndarray) -> Coordinates:
        """Picks by index, in the order given."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            micrograph=tuple(self.micrograph[index] for index in chosen.tolist()),
            x_px=self.x_px[chosen],
            y_px=self.y_px[chosen],
            score=None if self.score is None else self.score[chosen],
            box_px=None if self.box_px is None else self.box_px[chosen],
            rot_tilt_psi_deg=None if self.rot_tilt_psi_deg is None else self.rot_tilt_psi_deg[chosen],
            columns={name: tuple(cells[index] for index in chosen.tolist()) for name, cells in self.columns.items()},
        )

    def by_micrograph(self) -> dict[str, list[int]]:
        """Indices of the picks of each micrograph, micrographs in the order of their first pick."""
        found: dict[str, list[int]] = {}
        for index, name in enumerate(self.micrograph):
            found.setdefault(name, []).append(index)
        return found

    def warn(self, *texts: str) -> Coordinates:
        """The same with further warnings."""
        return replace(self, warnings=(*self.warnings, *texts))


def read_coordinates(
    path: Path | str, *, passthrough: Sequence[Path | str] = (), micrograph: str | None = None
) -> Coordinates:
    """Read a file of coordinates; its kind is told by its content and its ending.

    Parameters
    ----------
    path
        topaz text, STAR (RELION per-micrograph, job-level, particles; crYOLO ``.cbox``), EMAN ``.box`` or
        ``_info.json``, cryoSPARC ``.cs``, or a table (CSV) with columns for x and y.
    passthrough
        Passthrough files of a ``.cs``.
    micrograph
        Name of the micrograph, for files that name none; by default the file's stem.

    Raises
    ------
    InputError
        If the file is missing, empty, of no known kind, lacks a column, or a coordinate is no finite number.

    Examples
    --------
    >>> import tempfile
    >>> name = Path(tempfile.mkdtemp()) / "mic_1.box"
    >>> _ = name.write_text("10\\t20\\t100\\t100\\n")
    >>> picks = read_coordinates(name)
    >>> picks.micrograph, float(picks.x_px[0]), float(picks.y_px[0])
    (('mic_1',), 60.0, 70.0)
    """
    from equivox.formats import coordinates_star, coordinates_text
    from equivox.formats.cryosparc import is_cs

    path = require_file(path)
    ending = path.suffix.lower()
    if is_cs(path) or ending == ".cs":
        from equivox.formats.coordinates_cryosparc import read_cs_coordinates

        found = read_cs_coordinates(path, passthrough)
    elif passthrough:
        raise InputError(f"{path} is no .cs file; passthrough files belong to cryoSPARC's tables.")
    elif ending in (".star", ".cbox"):
        found = coordinates_star.read_star_coordinates(path, micrograph)
    elif ending == ".json":
        found = coordinates_text.read_info_json(path, micrograph)
    elif ending == ".box":
        found = coordinates_text.read_box(path, micrograph)
    else:
        found = coordinates_text.read_text_table(path, micrograph)
    return without_duplicates(_plausible(found))


def without_duplicates(coordinates: Coordinates) -> Coordinates:
    """Keep one of the picks at exactly the same place (the best scored), and say so."""
    best: dict[tuple[str, float, float], int] = {}
    x, y = coordinates.x_px.tolist(), coordinates.y_px.tolist()
    for index, key in enumerate(zip(coordinates.micrograph, x, y, strict=True)):
        held = best.get(key)
        if held is None or (coordinates.score is not None and coordinates.score[index] > coordinates.score[held]):
            best[key] = index
    if len(best) == len(coordinates):
        return coordinates
    lost = len(coordinates) - len(best)
    word = "pick stands" if lost == 1 else "picks stand"
    return coordinates.select(sorted(best.values())).warn(
        f"{coordinates.path}: {lost} {word} exactly on another of the same micrograph; one of each is kept."
    )


def _plausible(coordinates: Coordinates) -> Coordinates:
    """Refuse places that no detector has, and names with control characters: the file is damaged."""
    far = np.flatnonzero((np.abs(coordinates.x_px) > FARTHEST_PX) | (np.abs(coordinates.y_px) > FARTHEST_PX))
    if far.size:
        x, y = coordinates.x_px[far[0]], coordinates.y_px[far[0]]
        raise InputError(
            f"{coordinates.path}, pick {far[0] + 1}, lies at x {x:g}, y {y:g}; pixels within {FARTHEST_PX:g} are meant."
        )
    for index, name in enumerate(coordinates.micrograph):
        if any(ord(character) < 32 for character in name):
            raise InputError(f"{coordinates.path}, pick {index + 1}: the name {name!r} is no path; repair the file.")
    return coordinates


def require_numbers(path: Path, name: str, texts: Sequence[str], lines: Sequence[int]) -> Float64[np.ndarray, " row"]:
    """A column of texts as finite numbers; InputError with row, line and value otherwise."""
    values = np.empty(len(texts), dtype=np.float64)
    for index, text in enumerate(texts):
        try:
            values[index] = float(text)
        except ValueError:
            values[index] = np.nan
        if not np.isfinite(values[index]):
            raise InputError(
                f"{path}, line {lines[index]} (row {index + 1}): {name} is {text!r}; a finite number is needed."
            )
    return values

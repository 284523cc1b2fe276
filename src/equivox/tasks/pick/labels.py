"""Which labels lie on which micrograph, and whether they can be meant for it."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.coordinates import read_coordinates
from equivox.formats.micrograph_names import match_names
from equivox.tasks.pick.prepare import Prepared

COORDINATE_ENDINGS = (".txt", ".tsv", ".csv", ".star", ".box", ".cbox", ".cs", ".json")
FEW = 20
"""Fewer labels than this say nothing about a flip."""
SURE_SIGMA = 6.0
"""The contrast at labels counts as found when its mean is so many standard errors from 0."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Positions of labels by micrograph.

    Parameters
    ----------
    yx_px
        For each micrograph the positions (y, x) in pixels of its file, float64; empty where it has none.
    unmatched
        Names in the coordinate files that fit no micrograph -> why.
    without
        Micrographs without a label, by index.
    warnings
        What the readers found doubtful.
    """

    yx_px: tuple[Float[Tensor, "_ 2"], ...]
    unmatched: dict[str, str]
    without: tuple[int, ...]
    warnings: tuple[str, ...]

    @property
    def count(self) -> int:
        """Labels in all."""
        return sum(len(part) for part in self.yx_px)


def read_labels(coordinates: Sequence[str | Path], micrographs: Sequence[str]) -> Labels:
    """Read coordinate files and share their positions out among micrographs by name.

    Parameters
    ----------
    coordinates
        Files, folders (every coordinate file in them) or globs, of any format that is read.
    micrographs
        Paths of the micrographs.

    Raises
    ------
    InputError
        If a file cannot be read, or no name fits any micrograph.
    """
    found: list[list[tuple[float, float]]] = [[] for _ in micrographs]
    unmatched: dict[str, str] = {}
    warnings: list[str] = []
    names_seen = 0
    for path in coordinate_files(coordinates):
        read = read_coordinates(path)
        warnings += read.warnings
        matching = match_names(read.micrograph, micrographs)
        unmatched.update(matching.reasons)
        names_seen += len(set(read.micrograph))
        for index, x, y in zip(matching.found, read.x_px.tolist(), read.y_px.tolist(), strict=True):
            if index >= 0:
                found[index].append((y, x))
    if names_seen and len(unmatched) == names_seen:
        name, reason = next(iter(unmatched.items()))
        raise InputError(
            f"None of the {names_seen} micrograph names in the coordinates fits a micrograph given, for example "
            f"{name!r}: {reason}; give coordinates and micrographs that belong together."
        )
    positions = tuple(torch.tensor(part, dtype=torch.float64).reshape(-1, 2) for part in found)
    without = tuple(index for index, part in enumerate(positions) if len(part) == 0)
    return Labels(positions, unmatched, without, tuple(warnings))


def coordinate_files(given: Sequence[str | Path]) -> list[Path]:
    """Expand files, folders and globs to coordinate files.

    Raises
    ------
    InputError
        If a name leads to nothing.
    """
    files: list[Path] = []
    for entry in given:
        path = Path(entry).expanduser()
        if path.is_dir():
            inside = [file for file in sorted(path.iterdir()) if file.suffix.lower() in COORDINATE_ENDINGS]
            if not inside:
                raise InputError(
                    f"{path} holds no coordinate file ({', '.join(COORDINATE_ENDINGS)}); check the folder."
                )
            files += inside
        elif path.exists() or not glob.has_magic(str(entry)):
            files.append(path)
        else:
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
            if not matches:
                raise InputError(f"No coordinate file matches {str(entry)!r}; check the pattern.")
            files += matches
    return list(dict.fromkeys(files))


def fitted_labels(
    yx_px: Float[Tensor, "label 2"], size_px: tuple[int, int], *, flip_y: bool, scale: float, name: str
) -> tuple[Float[Tensor, "inside 2"], list[str]]:
    """Scale and flip labels as asked, and leave out those beyond the image.

    Returns
    -------
    Labels inside, and a sentence if some lay outside.

    Raises
    ------
    InputError
        If most lie outside: the coordinates are of another pixel size.
    """
    moved = yx_px * scale
    if flip_y:
        moved = torch.stack([size_px[0] - 1 - moved[:, 0], moved[:, 1]], dim=1)
    if len(moved) == 0:
        return moved, []
    limits = torch.tensor(size_px, dtype=moved.dtype)
    inside = ((moved >= -0.5) & (moved <= limits - 0.5)).all(dim=1)
    lost = int((~inside).sum())
    if lost == 0:
        return moved, []
    reach = moved.amax(dim=0).tolist()
    if 2 * lost > len(moved):
        raise InputError(
            f"{lost} of {len(moved)} coordinates lie outside {name} ({size_px[1]} x {size_px[0]} pixels, coordinates "
            f"up to x {reach[1]:.0f}, y {reach[0]:.0f}); they may count pixels before binning: give --coordinate-scale."
        )
    return moved[inside], [f"{lost} of {len(moved)} coordinates lie outside {name} and are left out."]


@dataclass(frozen=True, slots=True)
class LabelContrast:
    """Mean of the normalised images inside labelled particles, as labelled and with y counted from the other end.

    Parameters
    ----------
    mean, mean_flipped
        In units of the images' spread; negative is dark.
    error
        Standard error of ``mean``.
    labels
        How many.
    """

    mean: float
    mean_flipped: float
    error: float
    labels: int

    @property
    def found(self) -> bool:
        """Whether particles stand out at the labels at all."""
        return abs(self.mean) > SURE_SIGMA * self.error

    @property
    def upside_down(self) -> bool:
        """Whether the labels fit much better when y is counted from the last row."""
        return (
            self.labels >= FEW
            and abs(self.mean_flipped) > SURE_SIGMA * self.error
            and abs(self.mean_flipped) > 3.0 * abs(self.mean)
        )


def label_contrast(
    prepared: Sequence[Prepared], labels_px: Sequence[Float[Tensor, "_ 2"]], *, radius_px: float
) -> LabelContrast:
    """Mean contrast in discs of 0.8 radii around labels (working pixels), over several micrographs."""
    here: list[Tensor] = []
    flipped: list[Tensor] = []
    for one, labels in zip(prepared, labels_px, strict=True):
        if len(labels) == 0:
            continue
        level = disc_mean(one.image, 0.8 * radius_px)
        height = one.image.shape[0]
        here.append(_at(level, labels))
        flipped.append(_at(level, torch.stack([height - 1 - labels[:, 0], labels[:, 1]], dim=1)))
    if not here:
        return LabelContrast(0.0, 0.0, 1.0, 0)
    values = torch.cat(here)
    error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else 1.0
    return LabelContrast(float(values.mean()), float(torch.cat(flipped).mean()), max(error, 1e-6), len(values))


def disc_mean(image: Float[Tensor, "y x"], radius_px: float) -> Float[Tensor, "y x"]:
    """Mean over a disc around every pixel; beyond the edge the image is 0."""
    reach = max(1, int(radius_px))
    offsets = torch.arange(-reach, reach + 1, dtype=image.dtype)
    disc = ((offsets[:, None] ** 2 + offsets[None, :] ** 2) <= radius_px**2).to(image)
    return functional.conv2d(image[None, None], (disc / disc.sum())[None, None], padding=reach)[0, 0]


def _at(image: Tensor, yx: Tensor) -> Tensor:
    """Values at the nearest pixels."""
    rows = yx[:, 0].round().long().clamp(0, image.shape[0] - 1)
    columns = yx[:, 1].round().long().clamp(0, image.shape[1] - 1)
    return image[rows, columns]

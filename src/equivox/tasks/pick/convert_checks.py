"""Whether coordinates can be meant for the micrographs they are written for: outside, of binned pixels, upside down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool

from equivox.errors import EquivoxError, InputError
from equivox.formats.coordinates import Coordinates
from equivox.formats.micrographs import MicrographInput, open_micrograph
from equivox.tasks.pick.downsample import fourier_resample
from equivox.tasks.pick.labels import FEW, SURE_SIGMA, disc_mean

LOOK_AT = 8
"""Micrographs whose pixels are compared with their picks."""
LOOK_SIDE_PX = 400
"""They are reduced to this longer side first."""
FILLED = 0.62
"""Picks that reach no farther than this share of both sides are suspected to count larger pixels."""
SMALLEST_RADIUS_PX = 3.0


@dataclass(frozen=True, slots=True)
class Field:
    """Size of a micrograph, and its pixel size if its file says one."""

    shape: tuple[int, int]
    pixel_size_angstrom: float | None


def read_fields(micrographs: Sequence[MicrographInput]) -> tuple[dict[str, Field], dict[str, str], list[str]]:
    """Sizes of micrographs by name, those that cannot be opened with the reason, and doubts about the others."""
    fields: dict[str, Field] = {}
    problems: dict[str, str] = {}
    warnings: list[str] = []
    for entry in micrographs:
        if entry.problem:
            problems[entry.name] = entry.problem
            continue
        try:
            found = open_micrograph(entry.path)
        except EquivoxError as error:
            problems[entry.name] = str(error)
            continue
        rows, columns = found.pixels.shape
        fields[entry.name] = Field((rows, columns), found.pixel_size_angstrom)
    return fields, problems, warnings


def inside(coordinates: Coordinates, shapes: Mapping[str, tuple[int, int]]) -> Bool[np.ndarray, " pick"]:
    """Which centres lie on their micrograph; those of unknown size count as inside."""
    count = len(coordinates)
    sizes = np.array([shapes.get(name, (np.inf, np.inf)) for name in coordinates.micrograph], dtype=np.float64)
    sizes = sizes.reshape(count, 2)
    x, y = coordinates.x_px, coordinates.y_px
    known = np.isfinite(sizes[:, 0])
    within = (x >= -0.5) & (y >= -0.5) & (x <= sizes[:, 1] - 0.5) & (y <= sizes[:, 0] - 0.5)
    return within | ~known


def outside_sentence(coordinates: Coordinates, shapes: Mapping[str, tuple[int, int]], *, kept: bool) -> str | None:
    """How many centres lie outside and what that may mean; None if all are inside.

    Raises
    ------
    InputError
        If most lie outside and would be left out: the coordinates are of another pixel size.
    """
    lost = ~inside(coordinates, shapes)
    if not lost.any():
        return None
    index = int(np.flatnonzero(lost)[0])
    name = coordinates.micrograph[index]
    rows, columns = shapes[name]
    count, total = int(lost.sum()), len(coordinates)
    where = (
        f"{count} of {total} coordinates lie outside their micrographs, the first at x {coordinates.x_px[index]:.0f}, "
        f"y {coordinates.y_px[index]:.0f} on {name} ({columns} x {rows} pixels)"
    )
    if 2 * count > total and not kept:
        factor = _likely_factor(coordinates, shapes)
        raise InputError(
            f"{where}; they may count smaller pixels than the micrograph has: give --scale, perhaps --scale "
            f"{1 / factor:.4g}, or --keep-outside."
        )
    return f"{where}; they are {'kept' if kept else 'left out (--keep-outside keeps them)'}."


def binned_sentence(coordinates: Coordinates, shapes: Mapping[str, tuple[int, int]]) -> str | None:
    """A doubt if many picks all lie in one corner of all micrographs, as coordinates of a binned image do."""
    if len(coordinates) < 3 * FEW or any(name not in shapes for name in coordinates.micrograph):
        return None
    sizes = np.array([shapes[name] for name in coordinates.micrograph], dtype=np.float64)
    reach_x = float((coordinates.x_px / sizes[:, 1]).max())
    reach_y = float((coordinates.y_px / sizes[:, 0]).max())
    if max(reach_x, reach_y) > FILLED:
        return None
    factor = 1.0 / max(reach_x, reach_y)
    return (
        f"All {len(coordinates)} picks lie within {100 * reach_x:.0f} % of the width and {100 * reach_y:.0f} % of the "
        f"height: they may count pixels of an image binned about {factor:.1f} times; if so, give --scale."
    )


def flip_sentence(
    coordinates: Coordinates, micrographs: Mapping[str, MicrographInput], *, flipped: bool = False
) -> str | None:
    """A doubt if the micrographs' contrast fits the picks much better with y counted from the other end.

    ``flipped``: they were turned over on request, so that it is the request that may be wrong. Looks at up to eight
    micrographs with at least 20 picks in all; says nothing where particles do not stand out.
    """
    here: list[torch.Tensor] = []
    upside_down: list[torch.Tensor] = []
    groups = sorted(coordinates.by_micrograph().items(), key=lambda item: -len(item[1]))
    looked_at = [(name, indices) for name, indices in groups[:LOOK_AT] if name in micrographs]
    if sum(len(indices) for _, indices in looked_at) < FEW:
        return None
    for name, indices in looked_at:
        pixels = open_micrograph(micrographs[name].path).pixels
        factor = max(1.0, max(pixels.shape) / LOOK_SIDE_PX)
        small = fourier_resample(pixels, (round(pixels.shape[0] / factor), round(pixels.shape[1] / factor)))
        radius = SMALLEST_RADIUS_PX
        if coordinates.box_px is not None:
            radius = max(radius, 0.25 * float(np.median(coordinates.box_px)) / factor)
        level = disc_mean(small - small.median(), radius)
        level = level - disc_mean(level, 6 * radius)
        level = level / level.square().mean().sqrt().clamp_min(1e-12)
        x = torch.from_numpy(coordinates.x_px[indices]) * (small.shape[1] / pixels.shape[1])
        y = torch.from_numpy(coordinates.y_px[indices]) * (small.shape[0] / pixels.shape[0])
        columns = x.round().long().clamp(0, small.shape[1] - 1)
        rows = y.round().long().clamp(0, small.shape[0] - 1)
        here.append(level[rows, columns])
        upside_down.append(level[small.shape[0] - 1 - rows, columns])
    as_is, turned = torch.cat(here), torch.cat(upside_down)
    error = float(turned.std()) / len(turned) ** 0.5
    first, second = float(as_is.mean()), float(turned.mean())
    if abs(second) > SURE_SIGMA * error and abs(second) > 3.0 * abs(first):
        if flipped:
            return (
                f"The picks fitted the micrographs better before --flip-y (contrast {second:+.2f} instead of "
                f"{first:+.2f}): leave it out, unless the micrographs given are the ones that are upside down."
            )
        return (
            f"The picks fit the micrographs better upside down (contrast {second:+.2f} instead of {first:+.2f}): y "
            f"may be counted from the last row; if so, give --flip-y."
        )
    return None


def _likely_factor(coordinates: Coordinates, shapes: Mapping[str, tuple[int, int]]) -> float:
    """How many times too far the picks reach."""
    known = [index for index, name in enumerate(coordinates.micrograph) if name in shapes]
    sizes = np.array([shapes[coordinates.micrograph[index]] for index in known], dtype=np.float64)
    reach_x = np.quantile(coordinates.x_px[known] / sizes[:, 1], 0.98)
    reach_y = np.quantile(coordinates.y_px[known] / sizes[:, 0], 0.98)
    return float(max(reach_x, reach_y, 1.0))

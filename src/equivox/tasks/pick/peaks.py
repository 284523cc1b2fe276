"""From a map of scores to separate particles: local maxima, refined between outputs, the best first, none too near."""

from __future__ import annotations

import math
from collections import defaultdict

import torch
import torch.nn.functional as functional
from jaxtyping import Bool, Float, Int
from torch import Tensor


def local_maxima(score: Float[Tensor, "y x"], *, floor: float) -> Bool[Tensor, "y x"]:
    """Outputs above ``floor`` that none of the eight neighbours exceeds; of equal ones the first in reading order."""
    padded = functional.pad(score, (1, 1, 1, 1), value=-math.inf)
    height, width = score.shape
    highest = score > floor
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if dy == 0 and dx == 0:
                continue
            other = padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
            earlier = dy < 0 or (dy == 0 and dx < 0)
            highest &= (score > other) if earlier else (score >= other)
    return highest


def refine_peaks(
    score: Float[Tensor, "y x"], places: Int[Tensor, "peak 2"]
) -> tuple[Float[Tensor, "peak 2"], Float[Tensor, " peak"]]:
    """Summit of the parabola through each maximum (row, column) and its neighbours, axis by axis.

    Returns
    -------
    Position (row, column) in outputs, at most half an output away, and the score at the summit. At the edge of the map
    an axis without two neighbours stays as it is.
    """
    position = places.to(score.dtype).clone()
    height = score[places[:, 0], places[:, 1]].clone()
    gain = torch.zeros_like(height)
    for axis in (0, 1):
        size = score.shape[axis]
        inside = (places[:, axis] > 0) & (places[:, axis] < size - 1)
        step = torch.zeros_like(places)
        step[:, axis] = inside.to(places)
        before = score[(places - step)[:, 0], (places - step)[:, 1]]
        after = score[(places + step)[:, 0], (places + step)[:, 1]]
        bend = before - 2.0 * height + after
        curved = inside & (bend < -1e-12)
        shift = torch.where(curved, 0.5 * (before - after) / torch.where(curved, bend, torch.ones_like(bend)), 0.0)
        shift = shift.clamp(-0.5, 0.5)
        position[:, axis] += shift
        gain += torch.where(curved, -0.25 * (before - after) * shift, 0.0)
    return position, height + gain


def suppress(
    position: Float[Tensor, "peak 2"], score: Float[Tensor, " peak"], *, distance: float
) -> Int[Tensor, " kept"]:
    """Take peaks from the best down; drop those nearer than ``distance`` to one that was taken.

    Returns
    -------
    Indices in falling order of the score (equal scores: as they came). No two kept peaks are nearer than
    ``distance``, and every dropped one is nearer than that to a better one that was kept.
    """
    order = torch.sort(score, descending=True, stable=True).indices.tolist()
    if distance < 1e-6:
        return torch.tensor(order, dtype=torch.int64)
    places = position.double().tolist()
    cells: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    limit = distance * distance
    kept: list[int] = []
    for index in order:
        y, x = places[index]
        row, column = math.floor(y / distance), math.floor(x / distance)
        near = (
            (y - other_y) ** 2 + (x - other_x) ** 2 < limit
            for i in (row - 1, row, row + 1)
            for j in (column - 1, column, column + 1)
            for other_y, other_x in cells.get((i, j), ())
        )
        if not any(near):
            cells[row, column].append((y, x))
            kept.append(index)
    return torch.tensor(kept, dtype=torch.int64)

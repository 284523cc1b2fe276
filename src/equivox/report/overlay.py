"""Two brains in one picture, before and after alignment: fixed in orange, moving in blue, grey where they agree."""

from __future__ import annotations

import io

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from equivox.geometry.space import Volume, sample_at

SIDE_MM = 210.0
STEP_MM = 1.0
PLANES = (("axial", 0, 1), ("coronal", 0, 2), ("sagittal", 1, 2))
LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
FIXED_COLOR, MOVING_COLOR = (1.0, 0.55, 0.1), (0.0, 0.45, 0.9)
"""They add up to white."""
Image = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def overlay_picture(
    fixed: Volume,
    moving: Volume,
    fixed_from_moving: Float[Tensor, "4 4"],
    fixed_center_mm: Float[Tensor, "3"],
    moving_center_mm: Float[Tensor, "3"],
) -> bytes:
    """PNG of three planes through the fixed brain's centre; above as the headers say, below after alignment.

    Before alignment the moving brain is shifted so that both centres meet, or nothing could be seen of two scans whose
    origins lie far apart; its orientation is its own.
    """
    before = torch.eye(4, dtype=torch.float64)
    before[:3, 3] = moving_center_mm - fixed_center_mm
    after = torch.linalg.inv(fixed_from_moving.double())
    tops = [_high(volume) for volume in (fixed, moving)]
    figure = Figure(figsize=(9.0, 6.5), dpi=110, facecolor="black")
    canvas = FigureCanvasAgg(figure)
    rows = (("as the headers say (centres brought together)", before), ("after alignment", after))
    half = SIDE_MM / 2
    for row, (title, moving_from_fixed) in enumerate(rows):
        for column, (name, right, up) in enumerate(PLANES):
            panel = figure.add_axes((column / 3, 0.49 - row * 0.49, 1 / 3, 0.46))
            points = _plane(fixed_center_mm.double(), right, up)
            first = _cut(fixed, points, tops[0])
            second = _cut(moving, points @ moving_from_fixed[:3, :3].mT + moving_from_fixed[:3, 3], tops[1])
            colored = first[..., None] * np.array(FIXED_COLOR) + second[..., None] * np.array(MOVING_COLOR)
            panel.imshow(colored.clip(0, 1), origin="lower", extent=(-half, half, -half, half))
            edge = half * 0.94
            for x, y, letter in (
                (-edge, 0.0, LETTERS[right][0]),
                (edge, 0.0, LETTERS[right][1]),
                (0.0, -edge, LETTERS[up][0]),
                (0.0, edge, LETTERS[up][1]),
            ):
                panel.text(x, y, letter, color="white", fontsize=9, ha="center", va="center")
            panel.text(-edge, edge, name, color="0.7", fontsize=8, ha="left", va="center")
            panel.axis("off")
        figure.text(0.5, 0.955 - row * 0.49, title, color="white", fontsize=11, ha="center", va="bottom")
    figure.text(0.99, 0.005, "fixed", color=FIXED_COLOR, fontsize=10, ha="right", va="bottom")
    figure.text(0.93, 0.005, "moving", color=(0.3, 0.65, 1.0), fontsize=10, ha="right", va="bottom")
    buffer = io.BytesIO()
    canvas.print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def _plane(center_mm: Float[Tensor, "3"], right: int, up: int) -> Float[Tensor, "a b 1 3"]:
    """World points of a plane through the centre, rows upwards."""
    count = int(SIDE_MM / STEP_MM)
    ticks = (torch.arange(count, dtype=torch.float64) + 0.5) * STEP_MM - SIDE_MM / 2
    v, u = torch.meshgrid(ticks, ticks, indexing="ij")
    points = torch.zeros(count, count, 3, dtype=torch.float64)
    points[..., right], points[..., up] = u, v
    return (center_mm + points)[:, :, None]


def _cut(volume: Volume, points: Float[Tensor, "a b 1 3"], high: float) -> Image:
    """Values along a plane, 1 at the volume's bright end."""
    values: Image = (sample_at(volume, points)[0, :, :, 0].double() / high).clamp(0.0, 1.0).numpy()
    return values


def _high(volume: Volume) -> float:
    """The 98th percentile of what is not background."""
    seen = volume.data[volume.data > 0].flatten()
    if seen.numel() == 0:
        return 1.0
    place = max(int(0.98 * seen.numel()) - 1, 0)
    return max(float(seen.kthvalue(place + 1).values), 1e-12)

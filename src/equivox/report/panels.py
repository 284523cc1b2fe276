"""Pictures of a head's pose: planes of the scan with the head's axes, and the same scan seen in the head's own frame.

Every panel is one small square WebP picture. Planes are cut in millimetres, whatever the scan's grid: in the world
(RAS+) or in
the head's frame. A panel shows x to the right in axial and coronal planes (so L is on the left, as in nilearn), y to
the right in sagittal planes.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor

from equivox.geometry.rotations import Pose
from equivox.geometry.space import Volume, sample_at

AXIS_COLORS = ("#ff6b6b", "#5fd35f", "#6fb1ff")
"""Head's x, y, z: red, green, blue, light enough for a dark picture and told apart by their names as well."""
AXIS_NAMES = ("right", "front", "top")
MASK_COLOR = "#ffd54a"
PICTURE_PIXELS = 380
SCAN_SIDE_MM = 240.0
HEAD_SIDE_MM = 150.0
ARROW_MM = 50.0
NEAR_MM = 70.0
"""What decides the grey levels: a cube of twice this side around the head's centre."""
STEP_MM = 1.0
EYE_PLANE_MM = -22.0
"""Height of the eyes in the head's frame at about 31 weeks (data_mri.md section 4): where a flip is seen at once."""
LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True, slots=True)
class Plane:
    """One cut: which axes run to the right and upwards, and where along the third it lies."""

    name: str
    right: int
    up: int
    offset_mm: float = 0.0

    @property
    def normal(self) -> int:
        """The axis that the plane is perpendicular to."""
        return 3 - self.right - self.up


AXIAL, CORONAL, SAGITTAL = Plane("axial", 0, 1), Plane("coronal", 0, 2), Plane("sagittal", 1, 2)
SCAN_PLANES = (AXIAL, CORONAL, SAGITTAL)
HEAD_PLANES = (AXIAL, Plane("axial, 22 mm lower", 0, 1, EYE_PLANE_MM), CORONAL, SAGITTAL)


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture and the words that belong under it."""

    name: str
    caption: str
    webp: bytes


def scan_panels(volume: Volume, world_from_head: Pose, mask: Volume | None = None) -> tuple[Panel, ...]:
    """Axial, coronal and sagittal planes of the scanner through the head's centre, 240 mm wide.

    The head's axes are drawn where they point, 50 mm long before projection; an axis that points at the viewer is a
    ring with a dot, away from the viewer a ring with a cross. The mask's outline is yellow.
    """
    center = world_from_head.translation_mm.double()
    frame = torch.eye(3, dtype=torch.float64)
    axes = world_from_head.rotation.double()
    window = _window(volume, center, NEAR_MM)
    return tuple(
        _panel(volume, mask, frame, center, plane, SCAN_SIDE_MM, window=window, axes=axes, prefix="scan")
        for plane in SCAN_PLANES
    )


def head_panels(volume: Volume, world_from_head: Pose, mask: Volume | None = None) -> tuple[Panel, ...]:
    """The scan turned upright by the pose: planes of the head's own frame, 150 mm wide."""
    center = world_from_head.translation_mm.double()
    frame = world_from_head.rotation.double()
    window = _window(volume, center, NEAR_MM)
    return tuple(
        _panel(volume, mask, frame, center, plane, HEAD_SIDE_MM, window=window, axes=None, prefix="head")
        for plane in HEAD_PLANES
    )


def overview_panels(volume: Volume, mask: Volume | None = None) -> tuple[Panel, ...]:
    """Planes through the middle of a scan in which nothing was found, wide enough to hold it all."""
    corners = torch.tensor(volume.shape, dtype=torch.float64) * torch.tensor(volume.voxel_size_mm, dtype=torch.float64)
    side = float(corners.max())
    window = _window(volume, volume.center_mm(), side / 2)
    frame = torch.eye(3, dtype=torch.float64)
    return tuple(
        _panel(volume, mask, frame, volume.center_mm(), plane, side, window=window, axes=None, prefix="scan")
        for plane in SCAN_PLANES
    )


def _panel(
    volume: Volume,
    mask: Volume | None,
    frame: Float[Tensor, "3 3"],
    center_mm: Float[Tensor, "3"],
    plane: Plane,
    side_mm: float,
    *,
    window: tuple[float, float],
    axes: Float[Tensor, "3 3"] | None,
    prefix: str,
) -> Panel:
    """Cut, draw and encode one plane; ``frame`` holds the directions of the plane's axes in the world, as columns."""
    count = max(round(side_mm / max(STEP_MM, side_mm / 300)), 2)
    ticks = (torch.arange(count, dtype=torch.float64) + 0.5) * (side_mm / count) - side_mm / 2
    up, right = torch.meshgrid(ticks, ticks, indexing="ij")
    points = (
        center_mm
        + right[..., None] * frame[:, plane.right]
        + up[..., None] * frame[:, plane.up]
        + plane.offset_mm * frame[:, plane.normal]
    )[:, :, None]
    values = sample_at(volume, points)[0, :, :, 0].double()
    inside = None if mask is None else sample_at(mask, points)[0, :, :, 0].double()
    drawing = _blank()
    canvas = drawing.figure.axes[0]
    half = side_mm / 2
    extent = (-half, half, -half, half)
    canvas.imshow(values.numpy(), origin="lower", extent=extent, cmap="gray", vmin=window[0], vmax=window[1])
    if inside is not None and float(inside.max()) > 0.5:
        canvas.contour(
            inside.numpy(), levels=[0.5], origin="lower", extent=extent, colors=[MASK_COLOR], linewidths=[1.2]
        )
    if axes is not None:
        _draw_axes(canvas, frame.mT @ axes, plane)
    _draw_letters(canvas, plane, half)
    _draw_scale_bar(canvas, half)
    canvas.set(xlim=(-half, half), ylim=(-half, half))
    canvas.axis("off")
    name = f"{prefix}-{plane.name.split(',')[0]}" + ("-eyes" if plane.offset_mm else "")
    return Panel(name=name, caption=plane.name, webp=_as_webp(drawing))


_of_thread = threading.local()


def _blank() -> FigureCanvasAgg:
    """The thread's one black square to draw on, emptied.

    A figure is thousands of objects that refer to each other: made anew for every panel, they pile up until Python
    looks for them, among the tensors of the next volumes.
    """
    found: FigureCanvasAgg | None = getattr(_of_thread, "drawing", None)
    if found is None:
        figure = Figure(figsize=(3.0, 3.0), dpi=PICTURE_PIXELS / 3.0, facecolor="black")
        found = FigureCanvasAgg(figure)
        figure.add_axes((0.0, 0.0, 1.0, 1.0))
        _of_thread.drawing = found
    canvas = found.figure.axes[0]
    for artist in [*canvas.images, *canvas.collections, *canvas.lines, *canvas.texts]:
        artist.remove()
    return found


def _window(volume: Volume, center_mm: Float[Tensor, "3"], half_mm: float) -> tuple[float, float]:
    """Grey levels for all panels of a scan: 1st to 98.5th percentile of what lies near the centre."""
    ticks = torch.linspace(-half_mm, half_mm, 33, dtype=torch.float64)
    points = center_mm + torch.stack(torch.meshgrid(ticks, ticks, ticks, indexing="ij"), dim=-1)
    seen = sample_at(volume, points).double()
    seen = seen[seen != 0]
    if seen.numel() < 10:
        return 0.0, 1.0
    low, high = torch.quantile(seen, torch.tensor([0.01, 0.985], dtype=torch.float64)).tolist()
    if high - low > 1e-3 * max(abs(low), abs(high)):
        return low, high
    high = float(seen.max())  # nearly all is one grey: show what differs
    return (low, high) if high > low else (low, low + 1.0)


@lru_cache(maxsize=1)
def _outlined() -> list[Any]:
    return [withStroke(linewidth=2.2, foreground="black")]


def _draw_axes(canvas: Any, axes: Float[Tensor, "3 3"], plane: Plane) -> None:
    """Arrows of the head's axes (columns, in the plane's frame); the viewer looks against the plane's normal."""
    towards = _towards_viewer(plane)
    for index in range(3):
        direction = axes[:, index]
        x, y = float(direction[plane.right]) * ARROW_MM, float(direction[plane.up]) * ARROW_MM
        color, name = AXIS_COLORS[index], AXIS_NAMES[index]
        if (x * x + y * y) ** 0.5 < 0.25 * ARROW_MM:
            at_viewer = float(direction[plane.normal]) * towards > 0
            canvas.plot([0], [0], "o", ms=11, mfc="black", mec=color, mew=1.8, zorder=4)
            canvas.plot([0], [0], "o" if at_viewer else "x", ms=3 if at_viewer else 7, color=color, mew=1.8, zorder=5)
            canvas.text(7, -9, name, color=color, fontsize=8, ha="left", va="top", path_effects=_outlined(), zorder=6)
            continue
        arrow = {"arrowstyle": "-|>", "color": color, "lw": 2.2, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 12}
        canvas.annotate("", xy=(x, y), xytext=(0, 0), arrowprops=arrow, zorder=3)
        reach = 1.0 + 11.0 / max((x * x + y * y) ** 0.5, 1.0)
        canvas.text(
            x * reach,
            y * reach,
            name,
            color=color,
            fontsize=9,
            ha="center",
            va="center",
            path_effects=_outlined(),
            zorder=6,
        )


def _towards_viewer(plane: Plane) -> float:
    """+1 if the plane's normal axis points at the viewer, so that (right, up, normal) is right-handed; else -1."""
    return 1.0 if (plane.right, plane.up) in ((0, 1), (1, 2), (2, 0)) else -1.0


def _draw_letters(canvas: Any, plane: Plane, half: float) -> None:
    edge = half * 0.93
    style = {"color": "white", "fontsize": 10, "ha": "center", "va": "center", "weight": "bold"}
    places: Sequence[tuple[float, float, str]] = (
        (-edge, 0.0, LETTERS[plane.right][0]),
        (edge, 0.0, LETTERS[plane.right][1]),
        (0.0, -edge, LETTERS[plane.up][0]),
        (0.0, edge, LETTERS[plane.up][1]),
    )
    for x, y, letter in places:
        canvas.text(x, y, letter, path_effects=_outlined(), **style)


def _draw_scale_bar(canvas: Any, half: float) -> None:
    length = 50.0 if half > 60 else 10.0
    left, bottom = -half * 0.94, -half * 0.9
    canvas.plot(
        [left, left + length], [bottom, bottom], color="white", lw=2.5, solid_capstyle="butt", path_effects=_outlined()
    )
    canvas.text(
        left + length / 2,
        bottom + half * 0.03,
        f"{length:.0f} mm",
        color="white",
        fontsize=7.5,
        ha="center",
        va="bottom",
        path_effects=_outlined(),
    )


def _as_webp(drawing: FigureCanvasAgg) -> bytes:
    """What was drawn, at a fifth of a PNG's size; every browser since 2020 shows it."""
    drawing.draw()  # type: ignore[no-untyped-call]
    buffer = io.BytesIO()
    pixels = np.asarray(drawing.buffer_rgba())  # type: ignore[no-untyped-call]
    Image.fromarray(pixels).convert("RGB").save(buffer, format="WEBP", quality=84, method=4)
    return buffer.getvalue()

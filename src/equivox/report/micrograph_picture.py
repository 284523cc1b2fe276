"""A micrograph as a small grey picture, and particles drawn on it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

DARKEST, BRIGHTEST = -3.5, 3.5
"""Spreads of a normalised micrograph that become black and white."""
QUALITY = 70


def grey_picture(image: Float[Tensor, "y x"], *, largest_side_px: int) -> bytes:
    """A normalised micrograph as WebP, row 0 on top, at most ``largest_side_px`` a side."""
    picture = Image.fromarray(grey_array(image))
    shrink = largest_side_px / max(picture.size)
    if shrink < 1.0:
        size = max(1, round(picture.size[0] * shrink)), max(1, round(picture.size[1] * shrink))
        picture = picture.resize(size, Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=QUALITY)
    return buffer.getvalue()


def grey_array(image: Float[Tensor, "y x"]) -> Any:
    """A normalised micrograph as bytes (y, x)."""
    return ((image.clamp(DARKEST, BRIGHTEST) - DARKEST) * (255.0 / (BRIGHTEST - DARKEST))).round().byte().numpy()


def read_grey_picture(path: Path) -> Any:
    """The picture as an array (y, x) of bytes."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


def bar_length_angstrom(width_angstrom: float) -> float:
    """A round length of about a fifth of the width.

    Examples
    --------
    >>> bar_length_angstrom(6900.0), bar_length_angstrom(1800.0)
    (1000.0, 200.0)
    """
    rough = width_angstrom / 5.0
    power = 10.0 ** np.floor(np.log10(rough))
    return float(max(step * power for step in (1.0, 2.0, 5.0) if step * power <= rough))


def marked_picture(
    picture: Any,
    *,
    width_angstrom: float,
    groups: Sequence[tuple[str, str, Sequence[tuple[float, float]]]],
    radius_angstrom: float,
) -> bytes:
    """Circles on a micrograph with a scale bar, as WebP.

    Parameters
    ----------
    picture
        Array (y, x) of bytes, row 0 on top.
    width_angstrom
        Of the whole picture.
    groups
        Name, colour and centres (x, y in shares of width and height) of particles drawn alike.
    radius_angstrom
        Of the circles.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import EllipseCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    height, width = picture.shape
    side = 7.2
    figure = Figure(figsize=(side, side * height / width), dpi=100)
    canvas: Any = FigureCanvasAgg(figure)
    panel = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    panel.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="bilinear", origin="upper", aspect="auto")
    panel.set_axis_off()
    scale = width / width_angstrom
    for _, color, places in groups:
        if not places:
            continue
        offsets = np.array([(x * width - 0.5, y * height - 0.5) for x, y in places])
        sizes = np.full(len(places), 2.0 * radius_angstrom * scale)
        panel.add_collection(
            EllipseCollection(
                sizes, sizes, np.zeros(len(places)), units="xy", offsets=offsets, transOffset=panel.transData,
                facecolors="none", edgecolors=color, linewidths=0.9,
            )
        )  # fmt: skip
    panel.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    bar = bar_length_angstrom(width_angstrom)
    left, bottom, thick = 0.03 * width, 0.965 * height, 0.008 * height
    shown = f"{bar / 10:g} nm"
    panel.add_patch(Rectangle((left - 6, bottom - 0.055 * height), bar * scale + 12, 0.085 * height, color="black"))
    panel.add_patch(Rectangle((left, bottom), bar * scale, thick, color="white"))
    panel.text(left + bar * scale / 2, bottom - 0.006 * height, shown, color="white", ha="center", va="bottom", size=9)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    buffer = io.BytesIO()
    drawn.save(buffer, format="WEBP", quality=QUALITY)
    return buffer.getvalue()

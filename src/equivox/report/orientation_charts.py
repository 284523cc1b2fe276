"""Figures of orientations: views over the sphere, confidence, errors, example pictures. SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from equivox.report.figures import BLUE, GREY, RED, as_svg, new_figure

SMOOTH = 8
"""Cells along each side of a bin, so that its edges follow the map."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One picture to show, what the model says of it beside it, and words under it."""

    picture: Float[np.ndarray, "y x"]
    caption: str


def view_map(counts: Int[np.ndarray, "row column"]) -> bytes:
    """Viewing directions on a Mollweide map: bins of equal area, tilt 0 on top, rot from -180 to 180 degrees."""
    rows, columns = counts.shape
    fine = np.repeat(np.repeat(counts, SMOOTH, axis=0), SMOOTH, axis=1)  # bins have curved edges on this map
    latitude = np.arcsin(np.linspace(-1.0, 1.0, rows * SMOOTH + 1))
    longitude = np.linspace(-np.pi, np.pi, columns * SMOOTH + 1)
    mean = max(float(counts.mean()), 1e-12)
    with new_figure(7.2, 3.7) as figure:
        panel: Any = figure.add_subplot(111, projection="mollweide")
        top = max(2.0, float(counts.max()) / mean)
        drawn = panel.pcolormesh(longitude, latitude, fine / mean, cmap="viridis", vmin=0.0, vmax=top, rasterized=True)
        panel.set_xticks(np.radians([-120, -60, 0, 60, 120]), ["-120°", "-60°", "rot 0°", "60°", "120°"], color="white")
        panel.set_yticks(np.radians([-60, -30, 0, 30, 60]), ["tilt 150°", "120°", "90°", "60°", "30°"])
        panel.grid(lw=0.4, color="white", alpha=0.5)
        figure.colorbar(drawn, ax=panel, shrink=0.8, label="particles / even share")
        return as_svg(figure, pixels_per_inch=110)


def histogram_chart(
    values: Sequence[float],
    *,
    label: str,
    limits: tuple[float, float],
    bins: int = 36,
    marks: Sequence[tuple[str, float]] = (),
) -> bytes:
    """How many particles have which value; ``marks`` are named vertical lines."""
    with new_figure(5.6, 2.6) as figure:
        panel: Any = figure.subplots()
        panel.hist(np.clip(np.asarray(values, dtype=float), *limits), bins=bins, range=limits, color=BLUE, alpha=0.85)
        for name, place in marks:
            panel.axvline(place, color=RED, lw=1, ls="--", label=f"{name} {place:.3g}")
        if marks:
            panel.legend(frameon=False)
        panel.set(xlabel=label, ylabel="particles", xlim=limits)
        panel.spines[["top", "right"]].set_visible(False)
        return as_svg(figure)


def reliability_chart(
    confidence: Sequence[float], share: Sequence[float], count: Sequence[int], values: Sequence[float]
) -> bytes:
    """Share right against the confidence told (on the dotted line it is honest), and how often which is told.

    Points are as large as their bins are full; ``values`` are the confidences themselves.
    """
    with new_figure(6.8, 3.0) as figure:
        left, right = figure.subplots(1, 2)
        left.plot([0, 1], [0, 1], ":", color=GREY, lw=1)
        sizes = 20 + 160 * np.asarray(count, dtype=float) / max(1, max(count, default=1))
        left.scatter(confidence, share, s=sizes, color=BLUE, alpha=0.8, lw=0)
        left.plot(confidence, share, color=BLUE, lw=0.8)
        left.set(xlabel="confidence", ylabel="share within 10°", xlim=(-0.02, 1.02), ylim=(-0.02, 1.05))
        left.set_aspect("equal")
        right.hist(np.asarray(values, dtype=float), bins=20, range=(0.0, 1.0), color=BLUE, alpha=0.85)
        right.set(xlabel="confidence", ylabel="particles", xlim=(0, 1))
        for panel in (left, right):
            panel.spines[["top", "right"]].set_visible(False)
        return as_svg(figure)


def example_chart(examples: Sequence[Example], *, columns: int = 6) -> bytes:
    """Pictures in rows, row 0 of each on top; grey levels from the 1st to the 99th percentile."""
    rows = max(1, -(-len(examples) // columns))
    with new_figure(1.35 * columns, 1.75 * rows, font_size=7.5) as figure:
        panels = figure.subplots(rows, columns, squeeze=False)
        for panel in panels.flat:
            panel.axis("off")
        for example, panel in zip(examples, panels.flat, strict=False):
            low, high = np.percentile(example.picture, [1, 99])
            panel.imshow(example.picture, cmap="gray", vmin=low, vmax=max(high, low + 1e-9), interpolation="nearest")
            panel.set_title(example.caption, fontsize=7.5)
        return as_svg(figure, pixels_per_inch=110)

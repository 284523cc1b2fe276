"""What slices cover of a moving head: bars per stack, and maps of how often each place was imaged. SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap

from equivox.report.figures import as_svg, new_figure

COUNT_COLORS = ("#cf222e", "#dfe3e8", "#7fa8d9", "#1f4e8c")
"""Never, once, twice, more often."""
METHOD_COLORS = {
    "truth": "#3a7d44", "navigator": "#8bbf7a", "model": "#2463a8", "landmarks": "#b8860b", "blind": "#8b8b8b",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CoverageMap:
    """One plane of the head in which a stack's normal lies; -1 outside the brain, else how often it was imaged.

    ``counts[row, column]`` with rows upwards; ``extent_mm`` is (left, right, bottom, top).
    """

    orientation: str
    method: str
    counts: np.ndarray[Any, np.dtype[np.int64]]
    extent_mm: tuple[float, float, float, float]
    labels: tuple[str, str]


def coverage_bars(rows: Sequence[dict[str, Any]]) -> bytes:
    """Covered share [%] and obliqueness [degrees] (mean; a tick at the largest) per orientation and method."""
    orientations = list(dict.fromkeys(str(row["orientation"]) for row in rows))
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))
    width = 0.8 / len(methods)
    with new_figure(9.0, 2.9) as figure:
        panels = figure.subplots(1, 2)
        for index, method in enumerate(methods):
            mine = {row["orientation"]: row for row in rows if row["method"] == method}
            places = [at + (index - (len(methods) - 1) / 2) * width for at in range(len(orientations))]
            color = METHOD_COLORS.get(method, "#555555")
            covered = [mine[name]["covered_percent"] for name in orientations]
            panels[0].bar(places, covered, width=0.92 * width, color=color, label=method)
            oblique = [mine[name]["oblique_mean_deg"] for name in orientations]
            panels[1].bar(places, oblique, width=0.92 * width, color=color)
            panels[1].plot(places, [mine[name]["oblique_max_deg"] for name in orientations], "_", color=color, ms=8)
        panels[0].set(ylabel="brain covered [%]", ylim=(0, 100))
        panels[1].set(ylabel="obliqueness [°]: mean, and largest")
        panels[1].set_ylim(bottom=0)
        for panel in panels:
            panel.set_xticks(range(len(orientations)), orientations)
            panel.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper center", ncol=len(methods), frameon=False)
        return as_svg(figure)


def coverage_maps(maps: Sequence[CoverageMap]) -> bytes:
    """Maps in a grid: orientations as rows, methods as columns."""
    orientations = list(dict.fromkeys(one.orientation for one in maps))
    methods = list(dict.fromkeys(one.method for one in maps))
    colors = ListedColormap(["white", *COUNT_COLORS])
    norm = BoundaryNorm([-1.5, -0.5, 0.5, 1.5, 2.5, 1e9], colors.N)
    with new_figure(1.9 * len(methods) + 0.6, 1.9 * len(orientations) + 0.5) as figure:
        panels = figure.subplots(len(orientations), len(methods), squeeze=False)
        for one in maps:
            row, column = orientations.index(one.orientation), methods.index(one.method)
            panel = panels[row][column]
            panel.imshow(
                one.counts, origin="lower", extent=one.extent_mm, cmap=colors, norm=norm, interpolation="nearest"
            )
            panel.set_xlabel(f"{one.labels[0]} [mm]", fontsize=7)
            panel.set_ylabel(f"{one.labels[1]} [mm]", fontsize=7)
            panel.tick_params(labelsize=6)
            panel.set_title(f"{one.orientation}, {one.method}", fontsize=8)
            panel.spines[["top", "right"]].set_visible(False)
        return as_svg(figure)

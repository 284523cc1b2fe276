"""Figures of a classifier: confusion, accuracy by orientation, change of the logits against the angle. SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from equivox.report.charts import STYLE

BLUE, RED, GREY = "#2463a8", "#c0392b", "#59636e"


@dataclass(frozen=True, slots=True)
class AngleCurve:
    """Values against the angle [degrees]; ``floor`` is what resampling alone changes, None without resampling."""

    angle_deg: tuple[float, ...]
    change: tuple[float, ...]
    floor: tuple[float, ...] | None
    accuracy: tuple[float, ...]


def orientation_chart(names: Sequence[str], shares: Sequence[float], chance: float) -> bytes:
    """Accuracy by set of orientations."""
    with rc_context(STYLE):
        figure = Figure(figsize=(5.6, 0.42 * len(names) + 0.9), layout="constrained")
        FigureCanvasSVG(figure)
        panel: Any = figure.subplots()
        rows = list(range(len(names)))[::-1]
        panel.barh(rows, shares, color=BLUE, height=0.6)
        for row, share in zip(rows, shares, strict=True):
            panel.text(share + 0.012, row, f"{share:.3f}", va="center")
        panel.axvline(chance, color=GREY, ls=":", lw=1)
        panel.set_yticks(rows, names)
        panel.set(xlim=(0, 1.12), xlabel="accuracy (dotted: largest class)", xticks=(0, 0.25, 0.5, 0.75, 1))
        panel.spines[["top", "right"]].set_visible(False)
        return _svg(figure)


def angle_chart(curve: AngleCurve, chance: float) -> bytes:
    """Change of the logits, and accuracy, against the angle."""
    with rc_context(STYLE):
        figure = Figure(figsize=(6.6, 2.8), layout="constrained")
        FigureCanvasSVG(figure)
        left, right = figure.subplots(1, 2)
        left.plot(curve.angle_deg, curve.change, "o-", ms=3, lw=1.2, color=RED, label="turned")
        if curve.floor is not None:
            left.plot(curve.angle_deg, curve.floor, "s--", ms=3, lw=1, color=GREY, label="resampled there and back")
            left.legend(frameon=False, fontsize=8)
        left.set(xlabel="angle [°]", ylabel="change of the logits / spread", xticks=range(0, 181, 45))
        left.set_ylim(bottom=0)
        right.plot(curve.angle_deg, curve.accuracy, "o-", ms=3, lw=1.2, color=BLUE)
        right.axhline(chance, color=GREY, ls=":", lw=1)
        right.set(xlabel="angle [°]", ylabel="accuracy", ylim=(0, 1.03), xticks=range(0, 181, 45))
        for panel in (left, right):
            panel.spines[["top", "right"]].set_visible(False)
        return _svg(figure)


def confusion_chart(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> bytes:
    """Share of each true class (row) that was taken for each class (column)."""
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    side = max(3.2, min(0.42 * len(classes) + 1.6, 10.0))
    with rc_context(STYLE):
        figure = Figure(figsize=(side + 0.6, side), layout="constrained")
        FigureCanvasSVG(figure)
        panel: Any = figure.subplots()
        panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        if len(classes) <= 24:
            for row, line in enumerate(counts):
                for column, count in enumerate(line):
                    if count:
                        color = "white" if shares[row][column] > 0.55 else "black"
                        panel.text(column, row, str(count), ha="center", va="center", color=color, fontsize=7.5)
        ticks = range(len(classes))
        slanted = max((len(name) for name in classes), default=0) > 3
        panel.set_xticks(ticks, classes, rotation=60 if slanted else 0, ha="right" if slanted else "center")
        panel.set_yticks(ticks, classes)
        panel.set(xlabel="predicted class", ylabel="true class")
        return _svg(figure)


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    return buffer.getvalue()

"""Figures of a classifier: confusion, accuracy by orientation, change of the logits against the angle. SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from equivox.report.figures import BLUE, GREY, RED, as_svg, new_figure


@dataclass(frozen=True, slots=True)
class AngleCurve:
    """Values against the angle [degrees]; ``floor`` is what resampling alone changes, None without resampling."""

    angle_deg: tuple[float, ...]
    change: tuple[float, ...]
    floor: tuple[float, ...] | None
    accuracy: tuple[float, ...]


def orientation_chart(names: Sequence[str], shares: Sequence[float], chance: float) -> bytes:
    """Accuracy by set of orientations."""
    with new_figure(5.6, 0.42 * len(names) + 0.9) as figure:
        panel: Any = figure.subplots()
        rows = list(range(len(names)))[::-1]
        panel.barh(rows, shares, color=BLUE, height=0.6)
        for row, share in zip(rows, shares, strict=True):
            panel.text(share + 0.012, row, f"{share:.3f}", va="center")
        panel.axvline(chance, color=GREY, ls=":", lw=1)
        panel.set_yticks(rows, names)
        panel.set(xlim=(0, 1.12), xlabel="accuracy (dotted: largest class)", xticks=(0, 0.25, 0.5, 0.75, 1))
        panel.spines[["top", "right"]].set_visible(False)
        return as_svg(figure)


def angle_chart(curve: AngleCurve, chance: float) -> bytes:
    """Change of the logits, and accuracy, against the angle."""
    with new_figure(6.6, 2.8) as figure:
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
        return as_svg(figure)


def confusion_chart(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> bytes:
    """Share of each true class (row) that was taken for each class (column)."""
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    side = max(3.2, min(0.42 * len(classes) + 1.6, 10.0))
    with new_figure(side + 0.6, side) as figure:
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
        return as_svg(figure)

"""Figures of brain encoders: predictions against the truth; the metric, E and I against the angle of rotation. SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from equivox.report.figures import GREY, as_svg, new_figure

COLORS = ("#2463a8", "#c0392b", "#2e8b57", "#8e5ea2")
HAAR_PLACE = 222
"""Where random rotations are drawn on the axis of angles."""


def prediction_chart(truth: Sequence[float], predictors: Sequence[tuple[str, Sequence[float]]], name: str) -> bytes:
    """Predicted against true numbers, one panel per predictor."""
    low = min(*truth, *(min(values) for _, values in predictors))
    high = max(*truth, *(max(values) for _, values in predictors))
    with new_figure(3.2 * len(predictors) + 0.4, 3.3) as figure:
        panels = figure.subplots(1, len(predictors), squeeze=False)[0]
        for panel, (title, values), color in zip(panels, predictors, COLORS, strict=False):
            panel.plot([low, high], [low, high], color=GREY, lw=1)
            panel.plot(truth, values, "o", ms=3.5, alpha=0.6, mec="none", color=color)
            panel.set(xlabel=f"true {name}", ylabel=f"predicted {name}", aspect="equal")
            panel.set_title(title, fontsize=9)
            panel.spines[["top", "right"]].set_visible(False)
        return as_svg(figure)


@dataclass(frozen=True, slots=True)
class TurnCurve:
    """One encoder against the angle; Haar values are drawn at the right edge."""

    name: str
    angle_deg: tuple[float, ...]
    metric: tuple[float, ...]
    E: tuple[float, ...]
    I: tuple[float, ...]  # noqa: E741 - the field's own letter
    random_metric: float
    random_equivariance: float
    random_invariance: float


def turn_chart(
    curves: Sequence[TurnCurve],
    floor: Sequence[float],
    *,
    metric: str,
    chance: float,
    trivial: tuple[str, float] | None,
    from_zero: bool,
) -> bytes:
    """Metric, E and I against the angle, with the chance line and the resampling floor.

    Parameters
    ----------
    curves
        One per encoder, all at the same angles.
    floor
        Relative change of the input by one resampling, per angle.
    metric
        What the first panel shows.
    chance
        Its value for a predictor that never looks.
    trivial
        Name and value of a line that cannot depend on the orientation.
    from_zero
        Whether the metric's axis begins at 0.
    """
    with new_figure(7.6, 2.7) as figure:
        left, middle, right = figure.subplots(1, 3)
        left.axhline(chance, color=GREY, ls=":", lw=1.2, label="chance")
        if trivial is not None:
            left.axhline(trivial[1], color=GREY, ls="--", lw=1, label=trivial[0])
        for curve, color in zip(curves, COLORS, strict=False):
            for panel, values, haar in (
                (left, curve.metric, curve.random_metric),
                (middle, curve.E, curve.random_equivariance),
                (right, curve.I, curve.random_invariance),
            ):
                panel.plot(curve.angle_deg, values, "o-", ms=3, lw=1.2, color=color, label=curve.name)
                panel.plot([HAAR_PLACE], [haar], "D", ms=5, color=color, mec="white")
        turned = [(angle, value) for angle, value in zip(curves[0].angle_deg, floor, strict=True) if angle > 0]
        middle.plot([a for a, _ in turned], [v for _, v in turned], "s--", ms=3, lw=1, color=GREY, label="resampling")
        left.set(ylabel=metric)
        middle.set(ylabel="E: vectors off by / their size")
        right.set(ylabel="I: invariants off by / spread of scans")
        for panel in (left, middle, right):
            panel.set(xlabel="angle [°]", xticks=[0, 45, 90, 135, 180, HAAR_PLACE])
            panel.set_xticklabels(["0", "45", "90", "135", "180", "Haar"])
            panel.spines[["top", "right"]].set_visible(False)
            _legend(panel)
        if from_zero:
            left.set_ylim(bottom=0)
        middle.set_ylim(bottom=0)
        right.set_ylim(bottom=0)
        return as_svg(figure)


def _legend(panel: Any) -> None:
    panel.legend(frameon=False, fontsize=6.5)

"""Figures of picking: scores, precision and recall, reliability, orientations. SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from equivox.report.figures import BLUE, GREY, RED, as_svg, new_figure

BINS = 40


@dataclass(frozen=True, slots=True)
class CurveBand:
    """Lowest and highest precision at given recalls."""

    recall: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def score_chart(log_odds: Sequence[float], threshold: float, right: Sequence[bool] | None = None) -> bytes:
    """How many candidates have which log-odds; with ``right``, those that match a label and those that do not."""
    values = np.clip(np.asarray(log_odds, dtype=np.float64), -8.0, 12.0)
    with new_figure(5.4, 2.8) as figure:
        panel = _panel(figure)
        edges = np.linspace(
            min(-4.0, float(values.min(initial=0.0))), max(4.0, float(values.max(initial=0.0))), BINS + 1
        )
        if right is None:
            panel.hist(values, edges, color=BLUE, label="candidates")
        else:
            matched = np.asarray(right, dtype=bool)
            panel.hist(
                [values[matched], values[~matched]], edges, stacked=True, color=[BLUE, "#e0a79f"],
                label=["match a label", "match none"],
            )  # fmt: skip
        level = np.log(threshold / (1.0 - threshold)) if 0.0 < threshold < 1.0 else None
        if level is not None and edges[0] <= level <= edges[-1]:
            panel.axvline(level, color=RED, ls="--", lw=1, label=f"threshold {threshold:.2f}")
        panel.set(xlabel="log-odds of a candidate", ylabel="candidates")
        panel.legend(frameon=False)
        return as_svg(figure)


def precision_recall_chart(
    recall: Sequence[float],
    precision: Sequence[float],
    area: float,
    band: CurveBand | None,
    others: Sequence[float] = (),
) -> bytes:
    """Precision against recall with a confidence band; points at the precision and recall of the best F1."""
    with new_figure(4.2, 3.4) as figure:
        panel = _panel(figure)
        if band is not None:
            panel.fill_between(
                band.recall, band.low, band.high, color=BLUE, alpha=0.18, lw=0, label="95 % over micrographs"
            )
        panel.plot(recall, precision, color=BLUE, lw=1.4, label=f"area {area:.3f}")
        if len(others) == 2:
            panel.plot(others[0], others[1], "o", color=RED, ms=5, label="best F1")
        panel.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        panel.legend(frameon=False, loc="lower left")
        return as_svg(figure)


def reliability_chart(said: Sequence[float], right: Sequence[float], counts: Sequence[int], error: float) -> bytes:
    """The share of right picks against the probability they were given; the size of a point says how many there are."""
    with new_figure(3.8, 3.4) as figure:
        panel = _panel(figure)
        panel.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1)
        sizes = 12.0 + 120.0 * np.asarray(counts, dtype=np.float64) / max([*counts, 1])
        panel.plot(said, right, color=BLUE, lw=0.8, alpha=0.6)
        panel.scatter(said, right, s=sizes, color=BLUE, lw=0)
        panel.set(
            xlabel="probability said", ylabel="share that match a label", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03),
            title=f"mean gap {error:.3f}",
        )  # fmt: skip
        return as_svg(figure)


def orientation_chart(rot_deg: Sequence[float], tilt_deg: Sequence[float]) -> bytes:
    """Views of the picks on the sphere (Mollweide): longitude is rot, latitude 90 degrees minus tilt."""
    longitude = np.deg2rad((np.asarray(rot_deg, dtype=np.float64) + 180.0) % 360.0 - 180.0)
    latitude = np.deg2rad(90.0 - np.asarray(tilt_deg, dtype=np.float64))
    places, counts = np.unique(np.round(np.stack([longitude, latitude], axis=1), 4), axis=0, return_counts=True)
    with new_figure(5.4, 2.9) as figure:
        panel: Any = figure.add_subplot(projection="mollweide")
        panel.grid(True, lw=0.4, color="#cccccc")
        sizes = 8.0 + 190.0 * counts / max(counts.max(initial=1), 1)
        panel.scatter(places[:, 0], places[:, 1], s=sizes, color=BLUE, alpha=0.65, lw=0)
        panel.set_xticks(np.deg2rad([-120, -60, 0, 60, 120]), ["-120°", "-60°", "0°", "60°", "120°"], fontsize=7)
        panel.set_yticks(np.deg2rad([-60, -30, 0, 30, 60]), ["150°", "120°", "90°", "60°", "30°"], fontsize=7)
        return as_svg(figure)


def _panel(figure: Figure) -> Any:
    panel: Any = figure.subplots()
    panel.spines[["top", "right"]].set_visible(False)
    return panel

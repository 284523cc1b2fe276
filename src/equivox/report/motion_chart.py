"""Pose over time as SVG: turn, shift and displacement of the surface, frame by frame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from equivox.report.figures import as_svg, new_figure

JUMP_MM = 10.0
"""A step of the surface from one frame to the next that is, on average, larger is marked as a jump."""
AXES = {"x": ("right", "#c0392b"), "y": ("anterior", "#2e8b57"), "z": ("superior", "#2463a8")}


def motion_chart(
    rows: Sequence[Mapping[str, Any]],
    *,
    before_smoothing: Sequence[Mapping[str, Any] | None] | None = None,
    reference: str = "first",
) -> bytes:
    """Three panels over time: rotation vector [degrees], shift [mm], displacement of the surface [mm]. SVG.

    Parameters
    ----------
    rows
        The frames of a motion table (``turn_x_deg``, ``shift_x_mm``, ``surface_mean_mm``, ``step_mean_mm``, ``status``
        and so on); None where a frame has no pose, which leaves a gap and a grey mark.
    before_smoothing
        The same numbers of the poses before smoothing: dots behind the lines.
    reference
        ``"first"`` or ``"median"``, for the labels.
    """
    timed = all(row.get("time_s") is not None for row in rows)
    time = [float(row["time_s"]) if timed else float(row["frame"]) for row in rows]
    against = "first frame" if reference == "first" else "median pose"
    with new_figure(10.5, 2.9) as figure:
        panels = figure.subplots(1, 3)
        for panel, kind, label in (
            (panels[0], "turn_{}_deg", f"turn against {against} [°]"),
            (panels[1], "shift_{}_mm", f"shift against {against} [mm]"),
        ):
            for axis, (word, color) in AXES.items():
                name = kind.format(axis)
                if before_smoothing is not None:
                    panel.plot(time, _values(before_smoothing, name), ".", ms=3, color=color, alpha=0.35)
                panel.plot(time, _values(rows, name), "-", lw=1.2, color=color, label=f"{axis} ({word})")
            panel.axhline(0, color="#c8c8c8", lw=0.6, zorder=0)
            panel.set(ylabel=label)
            panel.legend(frameon=False, fontsize=7, ncol=3, loc="upper left", handlelength=1.2, columnspacing=0.8)
            panel.margins(y=0.18)
        _surface(panels[2], time, rows, before_smoothing)
        for panel in panels:
            panel.set(xlabel="time [s]" if timed else "frame")
            panel.spines[["top", "right"]].set_visible(False)
            for when, row in zip(time, rows, strict=True):
                if row["turn_x_deg"] is None:
                    panel.axvline(when, ymax=0.03, color="#8b8b8b", lw=2)
        return as_svg(figure)


def _surface(
    panel: Any,
    time: Sequence[float],
    rows: Sequence[Mapping[str, Any]],
    before: Sequence[Mapping[str, Any] | None] | None,
) -> None:
    """Mean and maximal displacement; low confidence and jumps are marked."""
    mean, largest = _values(rows, "surface_mean_mm"), _values(rows, "surface_max_mm")
    if before is not None:
        panel.plot(time, _values(before, "surface_mean_mm"), ".", ms=3, color="#555555", alpha=0.35)
    panel.plot(time, largest, "-", lw=0.8, color="#9a9a9a", label="maximum")
    panel.plot(time, mean, "-", lw=1.4, color="#222222", label="mean")
    low = [index for index, row in enumerate(rows) if row["status"] == "low_confidence"]
    if low:
        panel.plot([time[i] for i in low], [mean[i] for i in low], "^", ms=4, color="#9a6700", label="low confidence")
    steps = _values(rows, "step_mean_mm")
    jumps = [index for index, step in enumerate(steps) if step > JUMP_MM]
    if jumps:
        panel.plot(
            [time[i] for i in jumps], [mean[i] for i in jumps], "o", ms=9, mfc="none", mec="#cf222e",
            label=f"jump > {JUMP_MM:g} mm",
        )  # fmt: skip
    panel.set(ylabel="displacement of the surface [mm]")
    panel.set_ylim(bottom=0)
    panel.margins(y=0.18)
    panel.legend(frameon=False, fontsize=7, loc="upper left")


def _values(rows: Sequence[Mapping[str, Any] | None], name: str) -> list[float]:
    return [math.nan if row is None or row.get(name) is None else float(row[name]) for row in rows]

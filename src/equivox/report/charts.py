"""Scatters as SVG: errors per stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from equivox.report.figures import as_svg, new_figure


@dataclass(frozen=True, slots=True)
class StackError:
    """One point of the error chart."""

    label: str
    subject: str
    rotation_deg: float
    low_confidence: bool


def error_chart(stacks: Sequence[StackError]) -> bytes:
    """Rotation error of every stack, one column per subject, worst subject last; flips lie in the red band. SVG."""
    worst: dict[str, float] = {}
    for stack in stacks:
        if stack.rotation_deg == stack.rotation_deg:
            worst[stack.subject] = max(worst.get(stack.subject, 0.0), stack.rotation_deg)
        else:
            worst[stack.subject] = 181.0
    order = sorted(worst, key=lambda subject: (worst[subject], subject))
    column = {subject: index for index, subject in enumerate(order)}
    with new_figure(max(4.0, min(0.45 * len(order) + 1.5, 12.0)), 3.4) as figure:
        panel: Any = figure.subplots()
        panel.axhspan(90, 180, color="#cf222e", alpha=0.10, lw=0)
        panel.text(0.005, 92, "flips", color="#cf222e", va="bottom", transform=panel.get_yaxis_transform())
        for limit in (10, 30):
            panel.axhline(limit, color="#59636e", lw=0.8, ls=":")
        for low, marker, name in ((False, "o", "ok"), (True, "^", "low confidence")):
            points = [s for s in stacks if s.low_confidence is low and s.rotation_deg == s.rotation_deg]
            if points:
                panel.plot(
                    [column[s.subject] for s in points],
                    [s.rotation_deg for s in points],
                    marker,
                    ms=5,
                    alpha=0.75,
                    color="#9a6700" if low else "#2463a8",
                    label=name,
                    mec="none",
                )
        lost = [s for s in stacks if s.rotation_deg != s.rotation_deg]
        if lost:
            panel.plot([column[s.subject] for s in lost], [176] * len(lost), "x", color="black", label="no pose")
        panel.set(ylabel="rotation error [°]", ylim=(0, 180), xlim=(-0.6, len(order) - 0.4), yticks=range(0, 181, 30))
        panel.set_xticks(
            range(len(order)), order, rotation=60 if len(order) > 4 else 0, ha="right" if len(order) > 4 else "center"
        )
        panel.legend(frameon=False, loc="upper left")
        panel.spines[["top", "right"]].set_visible(False)
        return as_svg(figure)

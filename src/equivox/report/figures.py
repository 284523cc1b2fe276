"""Figures as SVG, all in one style: the same numbers give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {"svg.hashsalt": "equivox", "svg.fonttype": "none", "font.family": "sans-serif"}
BLUE, RED, GREY = "#2463a8", "#c0392b", "#59636e"


@contextmanager
def new_figure(width_in: float, height_in: float, *, font_size: float = 9) -> Iterator[Figure]:
    """An empty figure [inches]; what is drawn in the block, and turned into bytes there, has our style."""
    with rc_context({**STYLE, "font.size": font_size}):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure


def as_svg(figure: Figure, *, pixels_per_inch: int = 100) -> bytes:
    """The figure's file; ``pixels_per_inch`` of those parts that are pictures."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None}
    figure.savefig(buffer, format="svg", metadata=metadata, facecolor="white", dpi=pixels_per_inch)
    return buffer.getvalue()

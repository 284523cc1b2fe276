from __future__ import annotations

import re

import numpy as np

from equivox.report.orientation_charts import Example, example_chart, histogram_chart, reliability_chart, view_map


def texts(svg: bytes) -> str:
    content = svg.decode()
    assert content.lstrip().startswith("<?xml")
    return " ".join(re.findall(r">([^<>\n]+)</text>", content))


def test_the_map_of_views_has_its_axes_and_a_scale() -> None:
    counts = np.zeros((12, 24), dtype=np.int64)
    counts[10, 3] = 50
    said = texts(view_map(counts))
    assert "rot 0°" in said
    assert "particles / even share" in said
    assert view_map(counts) == view_map(counts)  # the same page for the same numbers
    assert texts(view_map(np.zeros((12, 24), dtype=np.int64)))  # nothing to show is no error


def test_histograms_name_their_axes_and_marks() -> None:
    said = texts(histogram_chart([1.0, 5.0, 400.0], label="error [°]", limits=(0.0, 180.0), marks=(("median", 5.0),)))
    assert "error [°]" in said
    assert "median 5" in said


def test_reliability_and_examples_are_drawn() -> None:
    assert "share within 10°" in texts(reliability_chart((0.2, 0.9), (0.1, 0.95), (3, 40), (0.2, 0.9)))
    pictures = [Example(np.eye(9), f"{index}: 0.5") for index in range(7)]
    assert "6: 0.5" in texts(example_chart(pictures))
    assert texts(example_chart([Example(np.zeros((9, 9)), "flat")])) == "flat"

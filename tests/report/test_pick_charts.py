from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from equivox.report.micrograph_picture import bar_length_angstrom, grey_array, grey_picture, marked_picture
from equivox.report.pick_charts import (
    CurveBand,
    orientation_chart,
    precision_recall_chart,
    reliability_chart,
    score_chart,
)


def test_figures_are_whole_svgs_also_without_data() -> None:
    band = CurveBand([0.0, 0.5, 1.0], [0.9, 0.8, float("nan")], [1.0, 0.9, float("nan")])
    figures = [
        score_chart([-3.0, 0.2, 5.0, 40.0], 0.5),
        score_chart([], 1.5),
        score_chart([1.0, -1.0], 0.3, [True, False]),
        precision_recall_chart([0.0, 0.5, 0.8], [1.0, 0.9, 0.7], 0.7, band, (0.8, 0.7)),
        precision_recall_chart([0.0], [1.0], 0.0, None),
        reliability_chart([0.1, 0.9], [0.2, 0.85], [10, 90], 0.05),
        orientation_chart([0.0, 170.0, -170.0, 170.0], [0.0, 90.0, 180.0, 90.0]),
        orientation_chart([], []),
    ]
    for figure in figures:
        assert ElementTree.fromstring(figure).tag.endswith("svg")
    assert b"threshold 0.50" in figures[0]
    assert b"threshold" not in figures[1]
    assert b"95 % over micrographs" in figures[3]
    assert figures[0] == score_chart([-3.0, 0.2, 5.0, 40.0], 0.5)


def test_a_picture_keeps_rows_on_top_and_marks_what_is_asked() -> None:
    image = torch.zeros(60, 120)
    image[:10] = 3.0
    with Image.open(io.BytesIO(grey_picture(image, largest_side_px=60))) as picture:
        assert picture.size == (60, 30)
        grey = np.asarray(picture.convert("L"))
    assert grey[:4].mean() > 200 > grey[10:].mean()
    assert grey_array(torch.tensor([[-9.0, 0.0, 9.0]])).tolist() == [[0, 127, 255]]
    drawn = marked_picture(
        grey, width_angstrom=1200.0, groups=[("picks", "#00ff00", [(0.5, 0.75)]), ("none", "#ff0000", [])],
        radius_angstrom=100.0,
    )  # fmt: skip
    with Image.open(io.BytesIO(drawn)) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    green = (pixels[..., 1] > 150) & (pixels[..., 0] < 110)
    rows, columns = np.nonzero(green)
    assert columns.mean() / pixels.shape[1] == pytest.approx(0.5, abs=0.02)
    assert rows.mean() / pixels.shape[0] == pytest.approx(0.75, abs=0.03)
    assert (columns.max() - columns.min()) / pixels.shape[1] == pytest.approx(200 / 1200, abs=0.02)
    assert bar_length_angstrom(6900.0) == 1000.0

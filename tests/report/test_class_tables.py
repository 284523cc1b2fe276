"""What every report on a classifier shows."""

from __future__ import annotations

import torch

from equivox.report.class_tables import WIDEST, class_tables, confusion_figure, turned_charts
from equivox.report.shape_charts import AngleCurve


def test_each_class_has_its_share_and_one_without_members_a_dash() -> None:
    counts = torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    by_class, confusions = class_tables(("ring", "disk", "star"), counts, "pictures")
    assert [row.cells for row in by_class.rows] == [("ring", "4", "0.750"), ("disk", "4", "1.000"), ("star", "0", "–")]
    assert [row.cells for row in confusions.rows] == [
        ("ring", "3", "1", ""),
        ("disk", "", "4", ""),
        ("star", "", "", ""),
    ]
    figure = confusion_figure(("ring", "disk", "star"), counts, shown="Upright", what="pictures")
    assert figure.caption == "Upright; colour is the share of the true class, the number how many pictures."


def test_many_classes_have_no_table_of_confusions() -> None:
    count = WIDEST + 1
    tables = class_tables([f"c{index}" for index in range(count)], torch.eye(count, dtype=torch.int64), "objects")
    assert [table.title for table in tables] == ["By class"]


def test_charts_of_turned_things_say_how_many_and_how() -> None:
    curve = AngleCurve((0.0, 90.0), (0.0, 0.5), None, (1.0, 0.75))
    bars, angles = turned_charts(
        [("upright", 1.0), ("random", 0.75)], curve, majority=0.5, count=7, what="pictures", how="In the plane."
    )
    assert (bars.title, bars.caption) == ("Turned pictures", "7 pictures.")
    assert angles.caption.startswith("In the plane. Change: ")
    assert angles.caption.endswith(" over pictures.")
    assert bars.uri.startswith("data:image/svg+xml")

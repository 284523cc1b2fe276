from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

from equivox.report.charts import StackError, error_chart
from equivox.report.page import Failure, InputSection, Picture, PoseRow, as_data_uri, render_pose_page


def page(name: str = "scan.nii.gz", reason: str = "") -> str:
    picture = Picture(as_data_uri(b"picture", "image/webp"), "axial", "axial plane")
    row = PoseRow(name, "input-1", 0, "ok", 0.93, (1.0, -2.0, 3.5), (10.0, -20.0, 30.0), 291.0, 2.5)
    lost = PoseRow("lost.nii", "input-2", 0, "failed", 0.0, None, None, 0.0, 0.0)
    return render_pose_page(
        subtitle="2 inputs",
        facts=(("model", "tiny"),),
        rows=(row, lost),
        inputs=(
            InputSection(
                name, "input-1", "ok", reason, 0.93, scan_pictures=(picture,), links=(("viewer", "viewer/a.html"),)
            ),
            InputSection("lost.nii", "input-2", "failed", "It is empty.", None),
        ),
        failures=(Failure("lost.nii", "It is empty."),),
    )


def test_a_page_asks_nothing_of_the_network() -> None:
    text = page()
    assert "default-src 'none'" in text
    assert "<script" not in text
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert addresses
    assert all(address.startswith(("data:", "#", "viewer/")) for address in addresses)
    assert "http" not in re.sub(r"http-equiv", "", text)


def test_a_page_says_what_matters() -> None:
    text = page()
    assert "For research, not a medical device." in text
    assert "<b>lost.nii</b>: It is empty." in text
    assert "1.0 / -2.0 / 3.5" in text
    assert "10.0 / -20.0 / 30.0" in text
    assert 'name="viewport"' in text


def test_file_names_cannot_write_html() -> None:
    text = page(name="<img src=x onerror=alert(1)>.nii", reason="<b>bold</b>")
    assert "<img src=x" not in text
    assert "&lt;b&gt;bold" in text


def test_every_anchor_of_the_table_exists() -> None:
    text = page()
    assert set(re.findall(r'href="#([^"]+)"', text)) == set(re.findall(r'id="([^"]+)"', text)) == {"input-1", "input-2"}


def test_charts_are_svg_and_do_not_change_from_run_to_run() -> None:
    stacks = [
        StackError("a", "s1", 5.0, False),
        StackError("b", "s1", 170.0, True),
        StackError("c", "s2", math.nan, False),
    ]
    first = error_chart(stacks)
    assert first == error_chart(stacks)
    assert ElementTree.fromstring(first).tag.endswith("svg")
    assert b"flips" in first

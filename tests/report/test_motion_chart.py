from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from equivox.report.motion_chart import motion_chart


def row(frame: int, turn: float | None, step: float | None = 0.5, status: str = "ok") -> dict[str, Any]:
    numbers = {f"turn_{axis}_deg": turn for axis in "xyz"} | {f"shift_{axis}_mm": turn for axis in "xyz"}
    surface = {"surface_mean_mm": turn, "surface_max_mm": turn, "step_mean_mm": step}
    return {"frame": frame, "time_s": frame * 2.0, "status": status, **numbers, **surface}


CALM = [row(0, 0.0), row(1, 1.0), row(2, None, None, "no_object"), row(3, 2.0, status="low_confidence")]


def test_it_is_svg_and_does_not_change_from_run_to_run() -> None:
    first = motion_chart(CALM)
    assert first == motion_chart(CALM)
    assert ElementTree.fromstring(first).tag.endswith("svg")
    assert b"time [s]" in first
    assert b"low confidence" in first


def test_jumps_are_marked_and_only_they() -> None:
    assert b"jump" not in motion_chart(CALM)
    assert b"jump &gt; 10 mm" in motion_chart([*CALM, row(4, 30.0, 28.0)])


def test_frames_stand_for_times_that_are_not_known_and_the_reference_is_named() -> None:
    untimed = [{**one, "time_s": None} for one in CALM]
    assert b"time [s]" not in motion_chart(untimed)
    assert b"median pose" in motion_chart(untimed, reference="median")


def test_what_was_before_smoothing_is_drawn_behind() -> None:
    before = [None if one["turn_x_deg"] is None else one for one in CALM]
    assert motion_chart(CALM, before_smoothing=before) != motion_chart(CALM)

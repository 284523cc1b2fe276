from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch

import equivox.samples
from equivox.formats.nifti import read_volume
from equivox.geometry.rotations import geodesic_angle
from equivox.geometry.space import grid_points_mm
from equivox.tasks.pose.model import load_pose_model

SCAN = Path(equivox.samples.__file__).parent / "fetal_epi" / "fet-03_run-1_epi.nii.gz"


def test_a_head_behind_a_saturated_slab_is_found_where_the_frame_before_had_it() -> None:
    model = load_pose_model("fetal-head-epi")
    volume = read_volume(SCAN)
    before = model.estimate(volume)
    pose = before.require_pose()
    height = (grid_points_mm(volume.affine, volume.shape) - pose.translation_mm.double())[..., 2]
    dark = replace(volume, data=volume.data * (1 - torch.exp(-0.5 * (height / 8.0) ** 2)).float())
    alone = model.follow(dark, None)
    assert alone.status == "no_object", "the slab hides the head from the finder: else this test shows nothing"

    followed = model.follow(dark, before)
    assert followed.status == "ok"
    assert followed.details["followed"] == 1.0
    assert any("frame before" in text for text in followed.warnings)
    turn = geodesic_angle(followed.require_pose().rotation.double(), pose.rotation.double())
    assert math.degrees(float(turn)) < 4.0

    draw = torch.Generator().manual_seed(0)
    noise = replace(volume, data=torch.rand(volume.data.shape, generator=draw) * 300)
    assert not model.follow(noise, before).has_pose, "where no head is, none is followed"

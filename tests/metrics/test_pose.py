from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from equivox.errors import InputError
from equivox.geometry.rotations import (
    chordal_mean,
    geodesic_angle,
    random_rotations,
    rotation_about,
    rotation_from_quaternion,
    rotation_from_vector,
)
from equivox.geometry.space import Volume
from equivox.metrics.pose import (
    calibrate_by_fold,
    fit_offset,
    geodesic_median,
    pose_errors,
    summarize_errors,
)
from equivox.metrics.pose_baselines import (
    mean_rotation_by_fold,
    principal_axes_oracle,
    uniform_rotation_numbers,
    uniform_rotation_share_below,
)


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(seed=st.integers(0, 10_000))
def test_errors_agree_with_scipy_and_live_in_the_heads_own_frame(seed: int) -> None:
    true, predicted = random_rotations(2, generator=draw(seed))
    center = torch.randn(2, 3, generator=draw(seed), dtype=torch.float64) * 30
    errors = pose_errors(predicted[None], true[None], center[:1], center[1:])
    relative = Rotation.from_matrix(true.numpy()).inv() * Rotation.from_matrix(predicted.numpy())
    vector = [abs(math.degrees(v)) for v in relative.as_rotvec()]
    assert float(errors.rotation_deg[0]) == pytest.approx(math.degrees(relative.magnitude()), abs=1e-6)
    assert [float(e[0]) for e in (errors.pitch_deg, errors.roll_deg, errors.yaw_deg)] == pytest.approx(vector, abs=1e-5)
    expected = true.mT @ (center[0] - center[1])
    torch.testing.assert_close(errors.center_in_head_mm[0], expected)
    assert float(errors.center_mm[0]) == pytest.approx(float(expected.norm()))


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_a_flip_is_named_by_the_half_turn_it_is_near(axis: str) -> None:
    true = random_rotations(1, generator=draw(3))
    wobble = rotation_from_vector(torch.tensor([0.1, -0.2, 0.15], dtype=torch.float64))
    zero = torch.zeros(1, 3, dtype=torch.float64)
    errors = pose_errors(true @ rotation_about(axis, 180.0) @ wobble, true, zero, zero)
    assert errors.confused_axis == (axis,)
    assert errors.flipped.tolist() == [True]
    assert pose_errors(true @ wobble, true, zero, zero).confused_axis == ("",)


def test_no_answer_is_a_miss_in_every_share_and_absent_from_the_median() -> None:
    true = torch.eye(3, dtype=torch.float64).repeat(4, 1, 1)
    predicted = torch.stack([rotation_about("x", angle) for angle in (4.0, 6.0, 8.0, 0.0)])
    predicted[3] = torch.nan
    center = torch.zeros(4, 3, dtype=torch.float64)
    lost = center.clone()
    lost[3] = torch.nan
    errors = pose_errors(predicted, true, lost, center)
    names = ["a", "b", "c", "d"]
    summary = summarize_errors(errors, names, names, generator=draw(0), resamples=50)
    assert summary.without_answer == 1
    assert summary.by_stack["share_below_10_deg"].value == 0.75
    assert summary.by_stack["share_without_answer"].value == 0.25
    assert summary.by_stack["share_flipped"].value == 0.0
    assert summary.by_stack["rotation_median_deg"].value == pytest.approx(6.0)
    assert summary.by_stack["share_center_within_10_mm"].value == 0.75


def test_averages_go_over_a_subjects_stacks_first() -> None:
    angles = [10.0, 20.0, 30.0, 60.0]
    predicted = torch.stack([rotation_about("z", angle) for angle in angles])
    true = torch.eye(3, dtype=torch.float64).repeat(4, 1, 1)
    center = torch.zeros(4, 3, dtype=torch.float64)
    errors = pose_errors(predicted, true, center, center)
    subjects = ["a", "a", "a", "b"]
    summary = summarize_errors(errors, subjects, subjects, generator=draw(0), resamples=200)
    assert summary.by_subject["rotation_mean_deg"].value == pytest.approx((20.0 + 60.0) / 2)
    assert summary.by_stack["rotation_mean_deg"].value == pytest.approx(30.0)
    assert (summary.by_subject["rotation_mean_deg"].low, summary.by_subject["rotation_mean_deg"].high) == pytest.approx(
        (20.0, 60.0)
    )
    assert (summary.stacks, summary.subjects) == (4, 2)


def test_the_same_seed_gives_the_same_interval() -> None:
    true = random_rotations(12, generator=draw(5))
    center = torch.zeros(12, 3, dtype=torch.float64)
    errors = pose_errors(random_rotations(12, generator=draw(6)), true, center, center)
    labels = [index // 2 for index in range(12)]
    first, second = (summarize_errors(errors, labels, labels, generator=draw(1), resamples=300) for _ in range(2))
    assert first == second


def test_weiszfeld_median_ignores_flips_where_the_mean_does_not() -> None:
    spread = random_rotations(20, generator=draw(7), max_angle_deg=5.0)
    offset = rotation_about("x", 12.0)
    rotations = offset @ spread
    rotations[:5] = rotations[:5] @ rotation_about("z", 180.0)
    distance = math.degrees(float(geodesic_angle(geodesic_median(rotations)[None], offset[None])[0]))
    assert distance < 2.0


def test_a_constant_offset_is_found_and_removed() -> None:
    true = random_rotations(30, generator=draw(8))
    predicted = true @ rotation_about("x", -30.0)
    torch.testing.assert_close(fit_offset(predicted, true), rotation_about("x", 30.0), atol=1e-9, rtol=0)


def test_the_offset_of_a_fold_never_sees_that_fold() -> None:
    true = random_rotations(9, generator=draw(9))
    folds = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    predicted = true.clone()
    predicted[:3] = true[:3] @ rotation_about("y", 40.0)  # only fold 0 is off
    calibrated, offsets = calibrate_by_fold(predicted, true, folds)
    torch.testing.assert_close(calibrated[:3], predicted[:3], atol=1e-9, rtol=0)  # nobody else knows of the 40 degrees
    assert offsets["0"] == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(InputError, match="two folds"):
        calibrate_by_fold(predicted, true, [0] * 9)


def test_uniform_rotations_err_as_the_exact_formula_says() -> None:
    exact = uniform_rotation_numbers()
    drawn = torch.rad2deg(
        geodesic_angle(
            random_rotations(200_000, generator=draw(10)), torch.eye(3, dtype=torch.float64).expand(200_000, 3, 3)
        )
    )
    assert exact.mean_deg == pytest.approx(float(drawn.mean()), abs=0.3)
    assert exact.median_deg == pytest.approx(float(drawn.median()), abs=0.4)
    assert exact.median_deg == pytest.approx(132.3, abs=0.05)
    assert exact.p95_deg == pytest.approx(float(drawn.quantile(0.95)), abs=0.4)
    assert uniform_rotation_share_below(30.0) == pytest.approx(float((drawn < 30).double().mean()), abs=1e-3)
    assert 1 - uniform_rotation_share_below(90.0) == pytest.approx(0.81, abs=0.01)


def test_mask_axes_with_oracle_signs_recover_an_ellipsoid() -> None:
    rotation = random_rotations(1, generator=draw(11))[0]
    grid = torch.stack(torch.meshgrid(*[torch.arange(64.0, dtype=torch.float64) * 2 - 63] * 3, indexing="ij"), -1)
    inside = ((grid @ rotation) / torch.tensor([43.0, 50.0, 34.0])).norm(dim=-1) < 1
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = -63.0
    found = principal_axes_oracle(Volume(inside[None].float(), affine), rotation)
    assert math.degrees(float(geodesic_angle(found[None], rotation[None])[0])) < 1.0
    assert float(torch.linalg.det(found)) == pytest.approx(1.0)


@pytest.mark.shared
def test_the_mean_rotation_errs_by_94_degrees_in_sample_and_by_more_out_of_fold(shared: Path) -> None:
    with (shared / "data/fetal/epi/poses.csv").open() as file:
        rows = list(csv.DictReader(file))
    quaternion = torch.tensor([[float(row[key]) for key in ("qx", "qy", "qz", "qw")] for row in rows]).double()
    true = rotation_from_quaternion(quaternion)
    in_sample = torch.rad2deg(geodesic_angle(chordal_mean(true).expand_as(true), true))
    assert float(in_sample.median()) == pytest.approx(94.3, abs=0.2)  # data_mri.md 2.3
    held_out = torch.rad2deg(geodesic_angle(mean_rotation_by_fold(true, [row["fold"] for row in rows]), true))
    assert float(held_out.median()) == pytest.approx(139.4, abs=0.2)

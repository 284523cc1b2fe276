"""The motion of a series: displacements of the surface against known motions, and the files of a real run."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from equivox.errors import ConfigError
from equivox.geometry.rotations import Pose, rotation_about
from equivox.geometry.space import Volume
from equivox.tasks.pose.config import PredictConfig
from equivox.tasks.pose.motion import MOTION_COLUMNS, ball_points_mm, measure_motion, surface_points_mm, write_motion
from equivox.tasks.pose.predict import RunChoice, predict_poses
from equivox.weights.importing import ImportSettings, import_published

STILL = torch.eye(3, dtype=torch.float64)


def at(rotation: torch.Tensor, *shift: float) -> Pose:
    return Pose(rotation, torch.tensor(shift, dtype=torch.float64), source="head", target="world")


def measure(poses: list[Pose | None], **options: object) -> list[dict[str, float]]:
    count = len(poses)
    statuses = ["ok" if pose else "no_object" for pose in poses]
    motion = measure_motion(poses, ball_points_mm(40.0), statuses=statuses, confidence=[1.0] * count, **options)  # type: ignore[arg-type]
    return [dict(row) for row in motion.rows]


def test_a_shift_moves_every_point_alike() -> None:
    first, second = measure([at(STILL, 0, 0, 0), at(STILL, 3, 0, 4)])
    assert first["surface_mean_mm"] == first["surface_max_mm"] == 0
    assert second["surface_mean_mm"] == second["surface_max_mm"] == second["step_mean_mm"] == 5
    assert (second["shift_x_mm"], second["shift_z_mm"], second["turn_deg"]) == (3, 4, 0)


def test_a_turn_about_the_centre_moves_a_ball_as_geometry_says() -> None:
    """Chord 2 r sin(a/2) at the equator; its mean over the sphere is pi/4 of that."""
    _, turned = measure([at(STILL, 9, 9, 9), at(rotation_about("z", 10.0), 9, 9, 9)])
    chord = 2 * 40 * math.sin(math.radians(5))
    assert turned["surface_max_mm"] == pytest.approx(chord, rel=1e-3)
    assert turned["surface_mean_mm"] == pytest.approx(math.pi / 4 * chord, rel=1e-3)
    assert turned["turn_deg"] == pytest.approx(10, abs=1e-3)
    assert turned["turn_z_deg"] == pytest.approx(10, abs=1e-3)
    assert turned["turn_x_deg"] == pytest.approx(0, abs=1e-3)


def test_steps_go_over_frames_without_a_pose_and_the_median_is_another_reference() -> None:
    poses = [at(STILL, 8, 0, 0), None, at(STILL, 0, 0, 0), at(STILL, 1, 0, 0)]
    rows = measure(poses, seconds=2.5)
    assert rows[1]["surface_mean_mm"] is None
    assert rows[1]["time_s"] == 2.5
    assert rows[2]["step_mean_mm"] == 8
    assert rows[0]["step_mean_mm"] is None
    against_median = measure(poses, reference="median")
    assert [row["surface_mean_mm"] for row in against_median] == pytest.approx([7, None, 1, 0], abs=1e-3)


def test_the_surface_of_a_mask_is_its_outside_in_the_heads_frame() -> None:
    affine = torch.diag(torch.tensor([2.0, 2.0, 4.0, 1.0], dtype=torch.float64))
    mask = torch.zeros(1, 30, 30, 20)
    mask[:, 5:25, 5:25, 4:16] = 1
    pose = at(rotation_about("x", 90.0), 29, 29, 38)
    points = surface_points_mm(Volume(mask, affine), pose)
    assert 300 < len(points) <= 600
    half = torch.tensor([19.0, 22.0, 19.0])  # the box's half widths, y and z swapped by the pose
    assert bool(((points.abs() - half).abs().amin(1) < 1e-6).all())
    assert len(surface_points_mm(Volume(0 * mask, affine), pose)) == 0


def test_every_column_is_documented_and_written(tmp_path: Path) -> None:
    motion = measure_motion(
        [at(STILL, 0, 0, 0), None], ball_points_mm(40.0), statuses=["ok", "failed"], confidence=[1.0, 0.0]
    )
    assert write_motion(tmp_path, "scan", motion) == ["scan_motion.csv", "scan_motion.json"]
    rows = list(csv.DictReader((tmp_path / "scan_motion.csv").read_text().splitlines()))
    assert list(rows[0]) == list(MOTION_COLUMNS)
    assert rows[1]["surface_mean_mm"] == ""
    document = json.loads((tmp_path / "scan_motion.json").read_text())
    assert document["columns"] == dict(MOTION_COLUMNS)
    assert document["summary"]["frames_with_pose"] == 1


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, fixture_path: Callable[[str], Path]) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    import_published(
        fixture_path("e3pose/23_unet_tiny.ckpt"), fixture_path("e3pose/23_e3cnn_tiny.pth"), folder,
        settings=ImportSettings(segment_size=32, rotate_size=16),
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory, fixture_path: Callable[[str], Path]) -> Path:
    """Five frames of one head that is shifted by whole voxels; the fourth holds a NaN. 2 s a frame."""
    image = nibabel.load(fixture_path("e3pose/24_pipeline/iso3_ras.nii.gz"))
    data = np.asarray(image.get_fdata(), dtype=np.float32)
    frames = [np.roll(data, (moved, 0, 0), axis=(0, 1, 2)) for moved in (0, 0, 1, 0, 1)]
    frames[3][3, 3, 3] = np.nan
    series = nibabel.Nifti1Image(np.stack(frames, axis=-1), image.affine)
    series.header.set_xyzt_units("mm", "sec")
    series.header.set_zooms((*image.header.get_zooms()[:3], 2.0))
    path = tmp_path_factory.mktemp("series") / "series.nii.gz"
    nibabel.save(series, path)
    return path


def run(model: Path, scan: Path, out: Path, **options: object) -> list[dict[str, str]]:
    config = PredictConfig(model=str(model), viewer="none", **{"report": False, **options})  # type: ignore[arg-type]
    predict_poses([scan], out, config, RunChoice(device="cpu"))
    return list(csv.DictReader((out / "series_motion.csv").read_text().splitlines()))


def test_a_shifted_head_has_moved_by_its_shift(tiny_model: Path, shifted: Path, tmp_path: Path) -> None:
    rows = run(tiny_model, shifted, tmp_path / "out", report=True)
    assert [row["status"] for row in rows][3] == "failed"
    assert [float(row["time_s"]) for row in rows] == [0, 2, 4, 6, 8]
    assert float(rows[1]["surface_max_mm"]) < 0.01
    assert float(rows[2]["shift_x_mm"]) == pytest.approx(3, abs=0.6)
    assert rows[3]["surface_mean_mm"] == ""
    page = (tmp_path / "out/report.html").read_text()
    assert page.count("data:image/svg+xml") == 1
    assert "series_motion.csv" in page
    document = json.loads((tmp_path / "out/series_motion.json").read_text())
    assert document["surface"].startswith("the mask of frame")
    assert document["summary"]["frames_with_pose"] == 4


def test_smoothing_changes_what_is_written_and_keeps_what_was(tiny_model: Path, shifted: Path, tmp_path: Path) -> None:
    run(tiny_model, shifted, tmp_path / "raw")
    rows = run(tiny_model, shifted, tmp_path / "smooth", smooth=True, write_mask=True, write_aligned=True)
    raw, smooth = (np.load(tmp_path / name / "series_pose.npy") for name in ("raw", "smooth"))
    assert np.isnan(smooth[3]).all()
    assert np.abs(raw[2] - smooth[2]).max() > 0.01
    assert float(rows[2]["smoothing_mm"]) == pytest.approx(np.linalg.norm(raw[2][:3, 3] - smooth[2][:3, 3]), abs=1e-3)
    before = json.loads((tmp_path / "smooth/series_motion.json").read_text())["before_smoothing"]
    np.testing.assert_allclose(before[2]["world_from_head"], raw[2], atol=1e-6)
    aligned = nibabel.load(tmp_path / "smooth/series_aligned.nii.gz")
    assert aligned.shape == (160, 160, 160, 5)
    assert not np.asarray(aligned.dataobj[..., 3]).any()
    assert np.asarray(aligned.dataobj[..., 4]).any()
    mask = nibabel.load(tmp_path / "smooth/series_mask.nii.gz")
    assert mask.get_data_dtype() == np.uint8
    assert mask.header.get_zooms()[3] == 2.0
    assert [bool(np.asarray(mask.dataobj[..., t]).any()) for t in range(5)] == [True, True, True, False, True]


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="--smooth changes poses"):
        PredictConfig(smooth=True, published=True)
    with pytest.raises(ConfigError, match="--smooth-frames is 0"):
        PredictConfig(smooth=True, smooth_frames=0)

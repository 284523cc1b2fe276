"""`equivox simulate motion` from files to files, with a small head and few slices."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from equivox.cli.main import main
from equivox.errors import ConfigError, InputError
from equivox.formats.poses import PoseRow, write_poses_csv
from equivox.formats.trajectories import read_trajectories
from equivox.geometry.rotations import Pose, random_rotations
from equivox.geometry.space import grid_points_mm
from equivox.tasks.simulate.motion import MotionInputs, MotionRun, simulate_motion
from equivox.tasks.simulate.motion_config import MotionConfig
from equivox.weights.importing import ImportSettings, import_published

COARSE = MotionConfig(thickness_mm=8.0, slice_size=128, methods=("truth", "navigator", "landmarks", "blind"))


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A brain of 44 x 50 x 37 mm half axes with two eyes, posed at random, in 3 mm voxels."""
    folder = tmp_path_factory.mktemp("head")
    affine = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = -85.5
    turn = random_rotations(1, generator=torch.Generator().manual_seed(4))[0]
    pose = Pose(turn, torch.tensor([3.0, -6.0, 4.0], dtype=torch.float64), source="head", target="world")
    points = pose.inverse().apply(grid_points_mm(affine, (58, 58, 58)))
    labels = ((points / torch.tensor([44.0, 50.0, 37.0])).norm(dim=-1) < 1).byte()
    for side in (-1.0, 1.0):
        eye = torch.tensor([side * 22.0, 52.0, -34.0], dtype=torch.float64)
        labels[(points - eye).norm(dim=-1) < 9] = 2
    image = 20.0 + 80.0 * (labels == 1) + 160.0 * (labels == 2) + torch.rand(58, 58, 58)
    for name, data in (("scan", image), ("labels", labels)):
        nibabel.save(nibabel.Nifti1Image(data.numpy().astype(np.float32), affine.numpy()), folder / f"{name}.nii.gz")
    write_poses_csv(folder / "poses.csv", [PoseRow("scan.nii.gz", 0, "ok", world_from_head=pose, confidence=1.0)])
    return {name: folder / file for name, file in (
        ("scan", "scan.nii.gz"), ("labels", "labels.nii.gz"), ("pose", "poses.csv"))}  # fmt: skip


def run(head: dict[str, Path], out: Path, config: MotionConfig = COARSE, **options: object) -> MotionRun:
    return simulate_motion(MotionInputs(**head), out, config, device="cpu", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(head: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> MotionRun:
    return run(head, tmp_path_factory.mktemp("motion") / "out", seed=1)


def by_method(finished: MotionRun) -> dict[str, list[dict[str, float]]]:
    table: dict[str, list[dict[str, float]]] = {}
    for row in finished.table():
        table.setdefault(row["method"], []).append(row)
    return table


def test_the_truth_covers_everything_and_the_others_as_far_as_they_know(finished: MotionRun) -> None:
    table = by_method(finished)
    for row in table["truth"]:
        assert (row["covered_percent"], row["gap_percent"]) == (100.0, 0.0)
        assert row["oblique_max_deg"] < 1e-3
    for delayed, blind in zip(table["navigator"], table["blind"], strict=True):
        assert delayed["oblique_mean_deg"] < blind["oblique_mean_deg"]
        assert delayed["covered_percent"] >= blind["covered_percent"]
        assert delayed["error_median_deg"] == 0
    assert sum(row["gap_percent"] for row in table["blind"]) > 5
    assert all(row["error_median_deg"] < 20 for row in table["landmarks"])


def test_every_file_is_there_and_says_the_same(finished: MotionRun) -> None:
    out = finished.out
    assert all((out / name).is_file() for name in finished.files)
    slices = list(csv.DictReader((out / "slices.csv").read_text().splitlines()))
    table = list(csv.DictReader((out / "coverage.csv").read_text().splitlines()))
    assert len(slices) == sum(int(row["slices"]) for row in table)
    counted = nibabel.load(out / "coverage/axial_blind.nii.gz")
    values = np.asarray(counted.dataobj)
    brain = values[np.asarray(nibabel.load(finished.out / "coverage/axial_truth.nii.gz").dataobj) > 0]
    row = next(r for r in table if (r["orientation"], r["method"]) == ("axial", "blind"))
    assert 100 * (brain > 0).mean() == pytest.approx(float(row["covered_percent"]), abs=1e-2)
    affines = np.load(out / "slices/sagittal_truth.npy")
    np.testing.assert_allclose(affines[:, :3, 2] / 8.0, np.tile([-1.0, 0, 0], (len(affines), 1)), atol=1e-6)
    page = (out / "report.html").read_text()
    assert page.count("data:image/svg+xml") == 2
    assert json.loads((out / "run.json").read_text())["seed"] == 1


def test_the_seed_decides_and_the_written_motion_gives_it_again(
    finished: MotionRun, head: dict[str, Path], tmp_path: Path
) -> None:
    config = MotionConfig(thickness_mm=8.0, slice_size=128, methods=("blind",))
    again = run(head, tmp_path / "again", config, seed=1)
    other = run(head, tmp_path / "other", config, seed=2)
    from_table = run({**head, "trajectory": finished.out / "trajectory.csv"}, tmp_path / "table", config, seed=9)
    blind = by_method(finished)["blind"]
    assert by_method(again)["blind"] == by_method(from_table)["blind"] == blind
    assert by_method(other)["blind"] != blind


def test_the_model_sees_navigators_and_steers_by_them(
    head: dict[str, Path], tmp_path: Path, fixture_path: Callable[[str], Path]
) -> None:
    """A small, barely trained model: this shows that the loop is closed, not how good it is."""
    import_published(
        fixture_path("e3pose/23_unet_tiny.ckpt"), fixture_path("e3pose/23_e3cnn_tiny.pth"), tmp_path / "tiny",
        settings=ImportSettings(segment_size=32, rotate_size=16),
    )  # fmt: skip
    config = MotionConfig(thickness_mm=25.0, slice_size=64, orientations=("axial",), methods=("model",))
    found = run(head, tmp_path / "out", config, model=str(tmp_path / "tiny"), write_navigators=True)
    (row,) = found.table()
    frames = sorted((tmp_path / "out/navigators/axial").glob("frame_*.nii.gz"))
    assert len(frames) == row["slices"]
    assert nibabel.load(frames[0]).header.get_zooms()[:3] == pytest.approx((6, 6, 6))
    assert row["error_median_deg"] > 0


def test_mistakes_are_one_sentence(head: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="another grid"):
        run({**head, "labels": _other_grid(tmp_path)}, tmp_path / "a")
    with pytest.raises(InputError, match="marks no brain"):
        run({**head, "labels": _nothing(head, tmp_path)}, tmp_path / "b")
    with pytest.raises(ConfigError, match="--delay-s is 3"):
        MotionConfig(delay_s=3.0)
    table = tmp_path / "motion.csv"
    table.write_text("sample,t,tx,ty,tz,rx,ry,rz\n0,0,0,0,0,0,0,0\n0,1,0,0,0,0,0,0\n")
    assert list(read_trajectories(table)) == ["0"]
    command = ["simulate", "motion", str(head["scan"]), str(head["labels"]), "--pose", str(head["pose"])]
    code = main(
        [*command, "--trajectory", str(table), "--sample", "7", "--out", str(tmp_path / "c"), "--methods", "truth"]
    )
    assert code == 2
    assert "--sample 7 is not in" in capsys.readouterr().err
    code = main([*command, "--methods", "thruth", "--out", str(tmp_path / "d")])
    assert code == 2


def _other_grid(folder: Path) -> Path:
    path = folder / "other.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.eye(9, dtype=np.uint8)[None].repeat(9, 0), np.eye(4)), path)
    return path


def _nothing(head: dict[str, Path], folder: Path) -> Path:
    path = folder / "nothing.nii.gz"
    image = nibabel.load(head["labels"])
    nibabel.save(nibabel.Nifti1Image(np.zeros(image.shape, dtype=np.uint8), image.affine), path)
    return path

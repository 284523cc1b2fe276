"""Conversion between files, and the mean of poses with its spread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from equivox.errors import ConfigError, GeometryError, InputError, OutputError
from equivox.formats.transforms.files import read_transforms
from equivox.formats.transforms.pose_json import read_pose_json, write_pose_json
from equivox.geometry.rotations import Pose, random_rotations, rotation_about
from equivox.tasks.pose.average import average_poses, mean_pose
from equivox.tasks.pose.convert import convert_pose, grid_of


def pose(seed: int, **frames: str) -> Pose:
    draw = torch.Generator().manual_seed(seed)
    shift = 30 * torch.randn(3, generator=draw, dtype=torch.float64)
    return Pose(random_rotations(1, generator=draw)[0], shift, **{"source": "head", "target": "world", **frames})


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    """A head-frame image and an oblique, left-handed scan."""
    oblique = np.eye(4)
    oblique[:3, :3] = (rotation_about("x", 30.0) @ rotation_about("y", 10.0)).numpy() * [-1.5, 1.5, 3.0]
    oblique[:3, 3] = [10, 20, -30]
    found = {}
    for name, affine, shape in (
        ("reference", np.diag([2.0, 2.0, 2.0, 1.0]), (5, 6, 7)),
        ("moving", oblique, (8, 9, 4)),
    ):
        found[name] = tmp_path / f"{name}.nii"
        image = nibabel.Nifti1Image(np.zeros(shape, dtype=np.float32), affine)
        image.header.set_xyzt_units("mm", "sec")
        nibabel.save(image, found[name])
    return found


def test_a_pose_survives_a_walk_through_all_formats(tmp_path: Path, images: dict[str, Path]) -> None:
    write_pose_json(tmp_path / "0.json", pose(1))
    walk = [("1.tfm", None), ("2.lta", None), ("3.mat", "itk"), ("4.mat", "fsl"), ("5.h5", None), ("6.x5", None),
            ("7.npy", None), ("8.json", None)]  # fmt: skip
    last = tmp_path / "0.json"
    for name, to in walk:
        done = convert_pose(last, tmp_path / name, to=to, **images)  # type: ignore[arg-type]
        torch.testing.assert_close(done.written.matrices[0], pose(1).matrix(), atol=1e-9, rtol=0)
        last = tmp_path / name
    torch.testing.assert_close(read_pose_json(last).matrix(), pose(1).matrix(), atol=1e-9, rtol=0)


def test_inverting_twice_through_fsl_comes_back(tmp_path: Path, images: dict[str, Path]) -> None:
    """The images change places with the direction."""
    write_pose_json(tmp_path / "p.json", pose(2))
    convert_pose(tmp_path / "p.json", tmp_path / "back.mat", to="fsl", invert=True, **images)
    swapped = {"reference": images["moving"], "moving": images["reference"]}
    convert_pose(tmp_path / "back.mat", tmp_path / "again.npy", invert=True, **swapped)  # type: ignore[arg-type]
    np.testing.assert_allclose(np.load(tmp_path / "again.npy"), pose(2).matrix().numpy(), atol=1e-9, rtol=0)
    read = read_transforms(tmp_path / "back.mat", fixed=grid_of(images["moving"]), moving=grid_of(images["reference"]))
    torch.testing.assert_close(read.matrices[0], pose(2).inverse().matrix(), atol=1e-9, rtol=0)


def test_one_frame_of_a_series(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", torch.stack([pose(seed).matrix() for seed in range(3)]).numpy())
    convert_pose(tmp_path / "s.npy", tmp_path / "f.tfm", frame=2)
    torch.testing.assert_close(read_transforms(tmp_path / "f.tfm").matrices[0], pose(2).matrix())
    with pytest.raises(ConfigError, match="choose one by --frame"):
        convert_pose(tmp_path / "s.npy", tmp_path / "g.tfm")
    with pytest.raises(OutputError, match="exists already"):
        convert_pose(tmp_path / "s.npy", tmp_path / "f.tfm", frame=1)
    convert_pose(tmp_path / "s.npy", tmp_path / "f.tfm", frame=1, overwrite=True)
    torch.testing.assert_close(read_transforms(tmp_path / "f.tfm").matrices[0], pose(1).matrix())


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), count=st.integers(2, 6))
def test_the_mean_is_scipys_and_moves_with_the_poses(seed: int, count: int) -> None:
    """The chordal mean is SciPy's, and turning all poses turns the mean."""
    draw = torch.Generator().manual_seed(seed)
    turns = random_rotations(count, generator=draw, max_angle_deg=60.0)
    shifts = torch.randn(count, 3, generator=draw, dtype=torch.float64)
    poses = [Pose(r, t, source="head", target="world") for r, t in zip(turns, shifts, strict=True)]
    names = [str(index) for index in range(count)]
    found = mean_pose(poses, names)
    expected = Rotation.from_matrix(turns.numpy()).mean().as_matrix()
    np.testing.assert_allclose(found.mean.rotation.numpy(), expected, atol=1e-9)
    np.testing.assert_allclose(found.mean.translation_mm.numpy(), shifts.mean(0).numpy(), atol=1e-12)
    angles = [(Rotation.from_matrix(expected).inv() * Rotation.from_matrix(r.numpy())).magnitude() for r in turns]
    np.testing.assert_allclose(found.angles_deg.numpy(), np.rad2deg(angles), atol=1e-5)
    move = Pose(
        random_rotations(1, generator=draw)[0], torch.ones(3, dtype=torch.float64), source="world", target="room"
    )
    moved = mean_pose([move.compose(one) for one in poses], names)
    torch.testing.assert_close(moved.mean.matrix(), move.compose(found.mean).matrix(), atol=1e-9, rtol=0)


def test_the_spread_is_what_was_put_in(tmp_path: Path) -> None:
    """Turns of ±9 degrees and shifts of ±4 mm about one pose: spread 9 degrees and 4 mm."""
    center = pose(3)
    for index, sign in enumerate((1.0, -1.0)):
        turn = Pose(rotation_about("y", 9.0 * sign), torch.zeros(3, dtype=torch.float64), source="head", target="head")
        one = center.compose(turn)
        shift = torch.tensor([0.0, 0.0, 4.0 * sign], dtype=torch.float64)
        write_pose_json(tmp_path / f"{index}.json", Pose(one.rotation, one.translation_mm + shift, "head", "world"))
    found = average_poses([tmp_path / "0.json", tmp_path / "1.json"], tmp_path / "mean.json")
    torch.testing.assert_close(read_pose_json(tmp_path / "mean.json").matrix(), center.matrix(), atol=1e-9, rtol=0)
    for name in ("rms", "median", "max"):
        assert found.spread()[f"{name}_angle_deg"] == pytest.approx(9.0, abs=1e-6)
        assert found.spread()[f"{name}_distance_mm"] == pytest.approx(4.0, abs=1e-6)


def test_frames_of_a_series_count_and_those_without_a_pose_do_not(tmp_path: Path) -> None:
    nothing = torch.full((4, 4), torch.nan, dtype=torch.float64)
    np.save(tmp_path / "s.npy", torch.stack([pose(4).matrix(), nothing, pose(4).matrix()]).numpy())
    found = average_poses([tmp_path / "s.npy"], tmp_path / "mean.npy")
    assert found.sources == (f"{tmp_path / 's.npy'}, frame 0", f"{tmp_path / 's.npy'}, frame 2")
    assert found.skipped == (f"{tmp_path / 's.npy'}, frame 1",)
    np.testing.assert_allclose(np.load(tmp_path / "mean.npy"), pose(4).matrix().numpy(), atol=1e-9)


def test_poses_that_have_no_mean_are_refused(tmp_path: Path) -> None:
    write_pose_json(tmp_path / "a.json", pose(5))
    write_pose_json(tmp_path / "b.json", pose(6, source="world", target="head"))
    np.save(tmp_path / "none.npy", np.full((3, 4, 4), np.nan))
    flips = [
        Pose(rotation_about("x", angle), torch.zeros(3, dtype=torch.float64), "head", "world") for angle in (0.0, 180.0)
    ]
    for index, flip in enumerate(flips):
        write_pose_json(tmp_path / f"flip{index}.json", flip)
    cases: list[tuple[list[str], Any, str]] = [
        (["a.json", "b.json"], GeometryError, "maps world to head, but .* maps head to world"),
        (["a.json"], ConfigError, "at least two"),
        (["none.npy"], InputError, "none of the 3 frames has a pose"),
        (["flip0.json", "flip1.json"], GeometryError, "no single mean"),
    ]
    for names, kind, said in cases:
        with pytest.raises(kind, match=said):
            average_poses([tmp_path / name for name in names], tmp_path / "mean.json")
    assert not (tmp_path / "mean.json").exists()

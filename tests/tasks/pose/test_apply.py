"""Reslicing with a known pose: what lies where, in which affine, for volumes and series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from equivox.errors import ConfigError, EquivoxError, InputError, OutputError
from equivox.formats.nifti import open_scan, read_volume
from equivox.formats.poses import PoseRow, write_poses_csv
from equivox.formats.transforms.files import TransformSet, write_transforms
from equivox.formats.transforms.grid import Grid
from equivox.formats.transforms.pose_json import write_pose_json
from equivox.geometry.rotations import Pose, random_rotations, rotation_about
from equivox.geometry.space import Volume
from equivox.geometry.splines import CubicSampler
from equivox.tasks.pose.apply import apply_pose
from equivox.tasks.pose.apply_grid import ApplyConfig, plane_grid, reslice


def scan_affine() -> torch.Tensor:
    """Oblique, left-handed, 1.5 x 1.5 x 3 mm."""
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = rotation_about("x", 25.0) @ rotation_about("z", -40.0)
    affine[:3, :3] *= torch.tensor([-1.5, 1.5, 3.0], dtype=torch.float64)
    affine[:3, 3] = torch.tensor([60.0, -45.0, -30.0])
    return affine


def pose(seed: int = 0) -> Pose:
    """Turned any way, near the middle of the scan."""
    draw = torch.Generator().manual_seed(seed)
    middle = scan_affine()[:3, :3] @ torch.tensor([19.5, 21.5, 10.5], dtype=torch.float64) + scan_affine()[:3, 3]
    shift = 2 * torch.randn(3, generator=draw, dtype=torch.float64)
    return Pose(random_rotations(1, generator=draw)[0], middle + shift, source="head", target="world")


def linear_field(points: torch.Tensor) -> torch.Tensor:
    """A field that is linear in head mm, so that linear and cubic interpolation are exact."""
    return 100 + points @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def scan_of(world_from_head: Pose, shape: tuple[int, int, int] = (40, 44, 22)) -> np.ndarray[Any, Any]:
    """The linear field of a head that lies at a pose, on the scan's grid."""
    index = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij"), -1)
    world = index @ scan_affine()[:3, :3].mT + scan_affine()[:3, 3]
    return linear_field(world_from_head.inverse().apply(world)).float().numpy()


def write_scan(path: Path, values: np.ndarray[Any, Any], seconds: float = 0.0) -> Path:
    image = nibabel.Nifti1Image(values.astype(np.float32), scan_affine().numpy())
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(scan_affine().numpy(), code=1)
    if values.ndim == 4:
        image.header.set_zooms((*image.header.get_zooms()[:3], seconds))
    nibabel.save(image, path)
    return path


def expected_field(volume: Volume) -> torch.Tensor:
    index = torch.stack(torch.meshgrid(*(torch.arange(n).double() for n in volume.shape), indexing="ij"), -1)
    return linear_field(volume.world_from_voxel(index))


SMALL: dict[str, Any] = {"spacing_mm": (2.0,), "size": (12, 10, 8)}


@pytest.mark.parametrize("plane", ["head", "axial", "coronal", "sagittal"])
@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_the_output_shows_the_head_in_its_own_frame(tmp_path: Path, plane: Any, interpolation: Any) -> None:
    """Each voxel holds the field's value at the head point that the output's own affine names."""
    scan = write_scan(tmp_path / "scan.nii.gz", scan_of(pose()))
    write_pose_json(tmp_path / "pose.json", pose())
    config = ApplyConfig(plane=plane, interpolation=interpolation, **SMALL)
    applied = apply_pose(scan, tmp_path / "pose.json", tmp_path / "out.nii.gz", config)
    assert applied.exit_code == 0
    assert applied.warnings == ()
    volume = read_volume(tmp_path / "out.nii.gz")
    assert volume.shape == (12, 10, 8)
    torch.testing.assert_close(volume.data[0].double(), expected_field(volume), atol=2e-3, rtol=0)


def test_the_planes_run_where_they_say() -> None:
    for plane, codes in (("head", "RAS"), ("axial", "RAS"), ("coronal", "RSP"), ("sagittal", "ASR")):
        affine, shape = plane_grid(plane, spacing_mm=(1.0, 1.5, 4.0), size=(20, 30, 5))  # type: ignore[arg-type]
        volume = Volume(torch.zeros(1, *shape), affine)
        assert volume.axis_codes == codes
        assert volume.voxel_size_mm == pytest.approx((1.0, 1.5, 4.0))
        assert float(torch.linalg.det(affine)) > 0
        torch.testing.assert_close(volume.center_mm(), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_in_the_worlds_frame_the_output_lies_over_the_scan(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz", scan_of(pose()))
    write_pose_json(tmp_path / "pose.json", pose())
    config = ApplyConfig(plane="sagittal", out_frame="world", **SMALL)
    apply_pose(scan, tmp_path / "pose.json", tmp_path / "out.nii", config)
    volume = read_volume(tmp_path / "out.nii")
    found = read_volume(scan).resample(volume.affine, volume.shape).data
    torch.testing.assert_close(volume.data, found, atol=2e-3, rtol=0)


def test_every_kind_of_pose_file_gives_the_same(tmp_path: Path) -> None:
    """ITK, LTA, FSL with its two images, X5, arrays, our table, and a pose that points the other way."""
    scan = write_scan(tmp_path / "scan.nii.gz", scan_of(pose()))
    moving = open_scan(scan)
    affine, shape = plane_grid("head", spacing_mm=(2.0,), size=(12, 10, 8))
    head = tmp_path / "head.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.arange(960, dtype=np.float32).reshape(shape), affine.numpy()), head)
    grids = {"moving": Grid(moving.affine, moving.shape), "fixed": Grid(affine, shape)}
    whole = TransformSet(tmp_path, "npy", (pose().matrix(),))
    names = {
        "p.tfm": "itk",
        "itk.mat": "itk",
        "p.h5": "itk",
        "p.lta": "lta",
        "p.mat": "fsl",
        "p.x5": "x5",
        "p.npy": "npy",
    }
    for name, kind in names.items():
        write_transforms(tmp_path / name, whole, kind, **grids)  # type: ignore[arg-type]
    write_transforms(tmp_path / "back.json", whole.inverse(), "json")
    write_transforms(tmp_path / "back.npy", whole.inverse(), "npy")
    rows = [
        PoseRow(f"data/{name}.nii.gz", 0, "ok", world_from_head=p) for name, p in (("a", pose(1)), ("scan", pose()))
    ]
    write_poses_csv(tmp_path / "poses.csv", rows)
    for name in (*names, "back.json", "back.npy", "poses.csv"):
        out = tmp_path / "out.nii"
        config = ApplyConfig(invert=name == "back.npy")
        apply_pose(scan, tmp_path / name, out, config, reference=head, overwrite=True)
        volume = read_volume(out)
        torch.testing.assert_close(volume.affine, affine)
        torch.testing.assert_close(volume.data[0].double(), expected_field(volume), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("interpolation", "atol"), [("linear", 1e-3), ("cubic", 1e-3), ("nearest", 0.0)])
def test_simpleitk_reslices_the_same(tmp_path: Path, interpolation: Any, atol: float) -> None:
    """Noise, oblique and left-handed, through the written transform on the written grid; borders aside."""
    sitk = pytest.importorskip("SimpleITK")
    values = np.random.default_rng(3).normal(100, 20, (40, 44, 22))
    scan = write_scan(tmp_path / "scan.nii", values)
    write_transforms(tmp_path / "p.h5", TransformSet(tmp_path, "npy", (pose().matrix(),)), "itk")
    config = ApplyConfig(plane="coronal", interpolation=interpolation, **SMALL)
    apply_pose(scan, tmp_path / "p.h5", tmp_path / "o.nii", config)
    kind = {"linear": sitk.sitkLinear, "cubic": sitk.sitkBSpline, "nearest": sitk.sitkNearestNeighbor}[interpolation]
    grid, transform = sitk.ReadImage(str(tmp_path / "o.nii")), sitk.ReadTransform(str(tmp_path / "p.h5"))
    theirs = sitk.GetArrayFromImage(sitk.Resample(sitk.ReadImage(str(scan)), grid, transform, kind, 0.0))
    ours = sitk.GetArrayFromImage(grid)
    assert ours.std() > 5
    wrong = np.abs(theirs - ours) > atol + 1e-5 * np.abs(theirs)
    assert wrong.mean() <= (0.002 if interpolation == "nearest" else 0.0)  # nearest: ties in float32 and float64


def test_each_frame_of_a_series_has_its_own_pose(tmp_path: Path) -> None:
    """A head that moves stands still afterwards; a frame without a pose is empty and listed."""
    poses = [pose(seed) for seed in range(4)]
    scan = write_scan(tmp_path / "s.nii.gz", np.stack([scan_of(one) for one in poses], -1), seconds=2.5)
    matrices = tuple(None if index == 2 else one.matrix() for index, one in enumerate(poses))
    write_transforms(tmp_path / "s.npy", TransformSet(tmp_path, "npy", matrices), "npy")
    seen: list[tuple[int, int]] = []
    applied = apply_pose(
        scan, tmp_path / "s.npy", tmp_path / "o.nii.gz", ApplyConfig(**SMALL), progress=lambda *done: seen.append(done)
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert applied.exit_code == 1
    assert applied.lost == (f"{scan}, frame 2: it has no pose; the output is 0 there.",)
    out = open_scan(tmp_path / "o.nii.gz")
    image: Any = nibabel.load(tmp_path / "o.nii.gz")
    assert out.frame_count == 4
    assert image.header.get_zooms()[3] == pytest.approx(2.5)
    assert float(np.abs(image.dataobj[..., 2]).max()) == 0
    for index in (0, 1, 3):
        volume = out.frame(index)
        torch.testing.assert_close(volume.data[0].double(), expected_field(volume), atol=2e-3, rtol=0)
    with pytest.raises(ConfigError, match="--out-frame world needs one pose"):
        apply_pose(scan, tmp_path / "s.npy", tmp_path / "w.nii", ApplyConfig(out_frame="world", **SMALL))


def test_one_pose_serves_a_whole_series_and_a_bad_frame_stays_empty(tmp_path: Path) -> None:
    values = np.stack([scan_of(pose()), np.full((40, 44, 22), np.nan)], -1)
    scan = write_scan(tmp_path / "s.nii", values)
    write_pose_json(tmp_path / "p.json", pose())
    applied = apply_pose(scan, tmp_path / "p.json", tmp_path / "o.nii", ApplyConfig(out_frame="world", **SMALL))
    assert applied.exit_code == 1
    assert "frame 1, has 38720 voxels" in applied.lost[0]
    assert read_frame_max(tmp_path / "o.nii", 0) > 50
    assert read_frame_max(tmp_path / "o.nii", 1) == 0


def read_frame_max(path: Path, index: int) -> float:
    image: Any = nibabel.load(path)
    return float(np.abs(image.dataobj[..., index]).max())


def test_by_default_slices_are_as_the_scans_voxels(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii", scan_of(pose()))
    write_pose_json(tmp_path / "p.json", pose())
    applied = apply_pose(scan, tmp_path / "p.json", tmp_path / "o.nii", ApplyConfig(plane="coronal"))
    assert applied.shape == (107, 107, 53)  # 160 mm at 1.5, 1.5 and 3 mm
    volume = read_volume(tmp_path / "o.nii")
    assert volume.voxel_size_mm == pytest.approx((1.5, 1.5, 3.0), abs=1e-5)


def test_nearest_keeps_labels_and_the_outside_is_zero() -> None:
    labels = torch.randint(1, 6, (1, 40, 44, 22), generator=torch.Generator().manual_seed(0)).float()
    volume = Volume(labels, scan_affine())
    affine, shape = plane_grid("head", spacing_mm=(6.0,), size=(30,))
    seen = reslice(volume, pose(), affine, shape, interpolation="nearest").data
    assert set(seen.unique().tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
    cubic = reslice(volume, pose(), affine, shape, interpolation="cubic").data
    assert torch.equal(cubic != 0, seen != 0)


def test_cubic_is_exact_for_cubic_polynomials_inside_and_at_the_voxels() -> None:
    grid = torch.stack(torch.meshgrid(*(torch.arange(24).double() for _ in range(3)), indexing="ij"), -1)

    def field(at: torch.Tensor) -> torch.Tensor:
        x, y, z = ((at - 12) / 12).unbind(-1)
        return x**3 - 2 * x * y * z + y**2 * z - z

    volume = Volume(field(grid)[None].float(), torch.eye(4, dtype=torch.float64))
    sampler = CubicSampler(volume)
    torch.testing.assert_close(sampler(grid), volume.data, atol=1e-6, rtol=0)
    inner = 11 + 2 * torch.rand(5, 5, 5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(sampler(inner)[0].double(), field(inner), atol=1e-5, rtol=0)


def test_slabs_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = Volume(torch.from_numpy(scan_of(pose()))[None], scan_affine())
    affine, shape = plane_grid("axial", spacing_mm=(2.0,), size=(14, 13, 11))
    whole = reslice(volume, pose(), affine, shape).data
    monkeypatch.setattr("equivox.tasks.pose.apply_grid.SLAB_POINTS", 400)
    torch.testing.assert_close(reslice(volume, pose(), affine, shape).data, whole, atol=1e-4, rtol=0)


def test_the_same_twice_is_the_same_file(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii", scan_of(pose()))
    write_pose_json(tmp_path / "p.json", pose())
    for name in ("a", "b"):
        apply_pose(scan, tmp_path / "p.json", tmp_path / name / "o.nii.gz", ApplyConfig(**SMALL))
    first, second = ((tmp_path / name / "o.nii.gz").read_bytes() for name in ("a", "b"))
    assert first == second


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"spacing_mm": (1.0, 2.0)}, "--spacing-mm has 2 numbers"),
        ({"spacing_mm": (0.0,)}, "must be above 0"),
        ({"spacing_mm": (float("nan"),)}, "must be above 0"),
        ({"size": (10, -1, 3)}, "--size is 10 -1 3; it must be above 0"),
    ],
)
def test_a_grid_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ApplyConfig(**options)


def test_what_cannot_be_done_is_said_and_leaves_no_file(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii", scan_of(pose()))
    write_pose_json(tmp_path / "p.json", pose())
    write_pose_json(tmp_path / "other.json", Pose(torch.eye(3), torch.zeros(3), source="specimen", target="world"))
    two = TransformSet(tmp_path, "npy", (pose().matrix(), pose(1).matrix()))
    write_transforms(tmp_path / "two.npy", two, "npy")
    np.save(tmp_path / "none.npy", np.full((1, 4, 4), np.nan))
    np.save(tmp_path / "affine.npy", np.diag([2.0, 1.0, 1.0, 1.0]))
    (tmp_path / "there.nii").write_bytes(b"x")
    small = ApplyConfig(**SMALL)
    cases: list[tuple[str, str, ApplyConfig, type[EquivoxError], str]] = [
        ("p.json", "o.mgz", small, ConfigError, "does not end in .nii"),
        ("p.json", "there.nii", small, OutputError, "exists already"),
        ("two.npy", "o.nii", small, InputError, "has 2 poses, but .* has 1 frame"),
        ("none.npy", "o.nii", small, InputError, "has no pose for"),
        ("affine.npy", "o.nii", small, InputError, "holds no rigid pose"),
        ("other.json", "o.nii", small, InputError, "maps specimen to world"),
        ("p.json", "o.nii", ApplyConfig(invert=True), ConfigError, "names its own frames"),
        ("p.json", "o.nii", ApplyConfig(spacing_mm=(0.1,)), ConfigError, "1600 x 1600 x 1600 voxels"),
    ]
    for name, out, config, kind, said in cases:
        with pytest.raises(kind, match=said):
            apply_pose(scan, tmp_path / name, tmp_path / out, config)
    with pytest.raises(ConfigError, match="is the scan itself"):
        apply_pose(scan, tmp_path / "p.json", scan, small, overwrite=True)
    assert not (tmp_path / "o.nii").exists()
    assert (tmp_path / "there.nii").read_bytes() == b"x"
    far = Pose(torch.eye(3), torch.full((3,), 900.0), source="head", target="world")
    write_pose_json(tmp_path / "far.json", far)
    applied = apply_pose(scan, tmp_path / "far.json", tmp_path / "far.nii", small)
    assert "nothing of the scan lies on the output's grid" in applied.warnings[-1]

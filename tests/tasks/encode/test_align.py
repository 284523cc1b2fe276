from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from equivox.cli.main import main
from equivox.formats.transforms.files import read_transforms
from equivox.formats.transforms.grid import Grid
from equivox.geometry.rotations import geodesic_angle, random_rotations
from equivox.tasks.encode.align import best_shift

Make = Callable[..., np.ndarray]
Save = Callable[..., Path]


@pytest.fixture
def moved(tmp_path: Path, brain_file: Path, save: Save, generator: torch.Generator) -> tuple[Path, np.ndarray]:
    """The brain of ``brain_file`` resampled in another orientation and place, and moving_from_fixed."""
    from scipy import ndimage

    image = nibabel.load(brain_file)
    matrix = np.eye(4)
    matrix[:3, :3] = random_rotations(1, generator=generator)[0].numpy()
    centre = nibabel.affines.apply_affine(image.affine, (np.array(image.shape) - 1) / 2)
    matrix[:3, 3] = np.array([12.0, -30.0, 7.0]) - matrix[:3, :3] @ centre
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -4.0 * 29.5 + np.array([15.0, -26.0, 3.0])
    back = np.linalg.inv(image.affine) @ np.linalg.inv(matrix) @ affine
    values = ndimage.affine_transform(np.asarray(image.dataobj), back, output_shape=(60, 60, 60), order=1)
    return save(tmp_path / "moving.nii.gz", np.where(values > 1, values, 0).astype(np.float32), affine), matrix


def test_the_pose_between_two_scans_is_found_and_written_for_everybody(
    brain_file: Path,
    moved: tuple[Path, np.ndarray],
    tiny_encoder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    moving, moving_from_fixed = moved
    out = tmp_path / "aligned"
    assert main(["encode", "align", str(brain_file), str(moving), "--out", str(out), "--model", str(tiny_encoder)]) == 0
    assert "confidence" in capsys.readouterr().out
    document = json.loads((out / "alignment.json").read_text())
    found = torch.tensor(document["fixed_from_moving"], dtype=torch.float64)
    error = geodesic_angle(found[:3, :3], torch.tensor(np.linalg.inv(moving_from_fixed)[:3, :3]))
    assert math.degrees(float(error)) < 12.0  # an untrained network on 13 mm voxels
    points = np.array([[20.0, 30.0, -10.0, 1.0], [90.0, 120.0, 80.0, 1.0]]).T
    off = found.numpy() @ moving_from_fixed @ points - points
    assert np.abs(off[:3]).max() < 20.0  # mm
    assert 0 < document["confidence"] <= 1
    assert document["correlation"] > 0.8
    grids = {
        "moving": Grid(torch.tensor(nibabel.load(moving).affine), (60, 60, 60)),
        "fixed": Grid(torch.tensor(nibabel.load(brain_file).affine), (44, 52, 44)),
    }
    inverse = torch.linalg.inv(found)
    for name in ("moving_from_fixed.tfm", "fixed_from_moving.lta", "fixed_from_moving_fsl.mat"):
        matrix = read_transforms(out / name, **grids).matrices[0]
        assert matrix is not None
        assert torch.allclose(matrix, inverse, atol=1e-4), name
    assert (out / "alignment.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((out / "run.json").read_text())
    assert [entry["role"] for entry in record["inputs"]] == ["fixed", "moving"]
    assert main(["encode", "align", str(brain_file), str(moving), "--out", str(out), "--model", str(tiny_encoder)]) == 2


def test_itk_resamples_the_moving_scan_onto_the_fixed_one(
    brain_file: Path, moved: tuple[Path, np.ndarray], tiny_encoder: Path, tmp_path: Path
) -> None:
    """SimpleITK with the written file, an outsider's reading of its direction."""
    sitk = pytest.importorskip("SimpleITK")
    moving, _ = moved
    out = tmp_path / "aligned"
    arguments = ["encode", "align", str(brain_file), str(moving), "--out", str(out), "--model", str(tiny_encoder)]
    assert main([*arguments, "--quiet", "--json"]) == 0
    fixed_image, moving_image = (sitk.ReadImage(str(path), sitk.sitkFloat32) for path in (brain_file, moving))
    transform = sitk.ReadTransform(str(out / "moving_from_fixed.tfm"))
    resampled = sitk.GetArrayFromImage(sitk.Resample(moving_image, fixed_image, transform, sitk.sitkLinear, 0.0))
    fixed = sitk.GetArrayFromImage(fixed_image)
    assert np.corrcoef(fixed.ravel(), resampled.ravel())[0, 1] > 0.93


def test_a_shift_is_found_to_a_fraction_of_a_voxel(brain_file: Path) -> None:
    from equivox.tasks.encode.data import open_brain

    source = open_brain(brain_file, voxel_size_mm=6.6)
    still = source.sample(side=32).volume[0]
    source.centroid_mm = source.centroid_mm + torch.tensor([4.0, -9.0, 2.5], dtype=torch.float64)
    moved = source.sample(side=32).volume[0]
    shift, correlation = best_shift(still, moved, 6.6)
    assert shift.tolist() == pytest.approx([4.0, -9.0, 2.5], abs=0.5)
    assert correlation > 0.9


def test_different_brains_and_blank_vectors_are_doubted(
    brain_file: Path, tiny_encoder: Path, tmp_path: Path, save: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y, z = np.meshgrid(*[np.arange(40) * 4.0 - 78] * 3, indexing="ij")
    ball = np.where(x**2 + y**2 + z**2 < 68**2, 100 + 0.3 * x, 0).astype(np.float32)
    other = save(tmp_path / "ball.nii.gz", ball)
    out = tmp_path / "out"
    assert main(["encode", "align", str(brain_file), str(other), "--out", str(out), "--model", str(tiny_encoder)]) == 0
    assert "low confidence" in capsys.readouterr().err
    assert json.loads((out / "alignment.json").read_text())["status"] == "low_confidence"


def test_a_missing_scan_is_one_sentence(
    brain_file: Path, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = tmp_path / "nothing.nii.gz"
    code = main(
        ["encode", "align", str(brain_file), str(nothing), "--out", str(tmp_path / "o"), "--model", str(tiny_encoder)]
    )
    assert code == 3
    assert "does not exist" in capsys.readouterr().err

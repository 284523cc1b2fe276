from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from equivox.errors import InputError
from equivox.geometry.rotations import cube_group, random_rotations, rotation_about
from equivox.tasks.encode.data import HIGHEST, open_brain, prepare_brain

Make = Callable[..., np.ndarray]
Save = Callable[..., Path]
GRID = {"side": 24, "voxel_size_mm": 8.8}


def turned_by_array(field: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Exact turn of a cube by a cube rotation: the value at p moves to turn @ p."""
    side = field.shape[-1]
    axis = torch.arange(side) - (side - 1) / 2
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    i, j, k = (points.double() @ turn.double() + (side - 1) / 2).round().long().unbind(-1)
    return field[:, i, j, k]


def test_the_brain_is_centred_scaled_and_zero_outside(brain_file: Path) -> None:
    brain = prepare_brain(brain_file)
    assert brain.volume.shape == brain.mask.shape == (1, 64, 64, 64)
    assert float(brain.volume.min()) == 0.0
    assert 1.0 < float(brain.volume.max()) <= HIGHEST
    assert float(brain.volume[brain.mask < 1e-6].abs().max()) < 1e-2  # ringing of the spline
    assert brain.warnings == ()
    weight = brain.mask[0].double()
    axis = torch.arange(64, dtype=torch.float64) - 31.5
    centre = [float((weight.sum(tuple({0, 1, 2} - {d})) * axis).sum() / weight.sum()) for d in range(3)]
    assert max(map(abs, centre)) < 0.01  # voxels of the working grid
    assert float(brain.mask.sum()) * 3.3**3 / 1000 == pytest.approx(brain.volume_ml, rel=2e-3)
    stored = nibabel.load(brain_file)
    world = nibabel.affines.apply_affine(stored.affine, np.argwhere(stored.get_fdata() > 0)).mean(0)
    assert brain.centroid_mm.tolist() == pytest.approx(world.tolist(), abs=1e-6)


def test_turning_by_the_cube_group_is_exact(brain_file: Path) -> None:
    source = open_brain(brain_file, voxel_size_mm=8.8)
    still = source.sample(side=24)
    for turn in cube_group()[[3, 11, 20]]:
        turned = source.sample(side=24, turn=turn)
        assert torch.equal(turned.volume, turned_by_array(still.volume, turn))


def test_a_turn_moves_a_blob_where_it_should(brain_values: Make, save: Save, tmp_path: Path) -> None:
    values = brain_values()
    values[values > 0] = 50.0
    values[30, 30, 24] = 5000.0
    source = open_brain(save(tmp_path / "blob.nii.gz", values))
    turn = rotation_about("z", 30.0) @ rotation_about("x", 40.0)
    blob_mm = torch.tensor([30.0, 30.0, 24.0], dtype=torch.float64) * 4.0 - source.centroid_mm
    brightest = source.sample(turn=turn).volume[0].flatten().argmax()
    found = (torch.tensor(np.unravel_index(int(brightest), (64, 64, 64))) - 31.5) * 3.3
    assert float((found - turn @ blob_mm).norm()) < 3.3


def test_storage_order_handedness_and_oblique_axes_change_nothing(
    brain_values: Make, save: Save, tmp_path: Path, brain_file: Path
) -> None:
    """A LAS copy fed without reorientation would be a mirrored brain."""
    still = prepare_brain(brain_file)
    image = nibabel.load(brain_file)
    for codes in ("LAS", "PIR", "SLA"):
        target = nibabel.orientations.axcodes2ornt(tuple(codes))
        copy = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), target))
        path = tmp_path / f"{codes}.nii.gz"
        nibabel.save(copy, path)
        other = prepare_brain(path)
        assert torch.allclose(other.volume, still.volume, atol=2e-6), codes
        assert torch.allclose(other.affine, still.affine, atol=1e-5)
        determinant = float(torch.linalg.det(other.direction))
        assert determinant == pytest.approx(-1.0 if codes in ("LAS",) else float(np.sign(np.linalg.det(copy.affine))))


def test_a_header_that_turns_the_world_turns_the_brain(
    brain_values: Make, save: Save, tmp_path: Path, brain_file: Path, generator: torch.Generator
) -> None:
    turn = random_rotations(1, generator=generator)[0]
    image = nibabel.load(brain_file)
    full = np.eye(4)
    full[:3, :3] = turn.numpy()
    path = save(tmp_path / "oblique.nii.gz", np.asarray(image.dataobj), full @ image.affine)
    expected = open_brain(brain_file).sample(turn=turn)
    assert torch.allclose(prepare_brain(path).volume, expected.volume, atol=2e-4)  # headers hold float32


def test_finer_and_thicker_voxels_give_nearly_the_same_brain(brain_values: Make, save: Save, tmp_path: Path) -> None:
    fine = brain_values((88, 104, 88), 2.0)
    first = prepare_brain(save(tmp_path / "fine.nii.gz", fine, np.diag([2.0, 2.0, 2.0, 1.0])))
    thick = prepare_brain(save(tmp_path / "thick.nii.gz", fine[:, :, ::2], np.diag([2.0, 2.0, 4.0, 1.0])))
    assert float((first.volume - thick.volume).norm() / first.volume.norm()) < 0.12


def test_a_mask_takes_the_skull_away(brain_values: Make, save: Save, tmp_path: Path) -> None:
    values = brain_values()
    mask = (values > 0).astype(np.float32)
    head = values + 30.0 * (values == 0)
    path, mask_path = (
        save(tmp_path / "head.nii.gz", head + 0.01 * np.random.default_rng(0).random(head.shape, np.float32)),
        save(tmp_path / "mask.nii.gz", mask),
    )
    with pytest.raises(InputError, match=r"skull on: 100 %.*SynthStrip.*HD-BET"):
        prepare_brain(path)
    with pytest.raises(InputError, match="no constant background"):
        prepare_brain(path, brain_extracted=True)
    plain = prepare_brain(save(tmp_path / "plain.nii.gz", values))
    assert torch.allclose(prepare_brain(path, mask=mask_path).volume, plain.volume, atol=1e-3)


def test_a_head_in_clean_air_is_refused_by_its_size(brain_values: Make, save: Save, tmp_path: Path) -> None:
    x, y, z = np.meshgrid(*[np.arange(64) * 4.0 - 126] * 3, indexing="ij")
    head = np.where((x / 85) ** 2 + (y / 100) ** 2 + (z / 110) ** 2 < 1, 100 + x, 0).astype(np.float32)
    path = save(tmp_path / "head.nii.gz", head)
    with pytest.raises(InputError, match=r"skull on: \d+ mL are not background"):
        prepare_brain(path)
    warned = prepare_brain(path, brain_extracted=True).warnings
    assert any("looks as if its skull were on" in text for text in warned)
    assert any("beyond the ball of 101 mm" in text for text in warned)


def shifted(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values / 50 - 1.5, -0.7).astype(np.float32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v[:, :, 21:], "cut off at its lower side"),
        (lambda v: v[:27], "cut off at its right side"),
        (lambda v: np.where(np.indices(v.shape)[0] == 18, 0, v), "off its largest piece"),
        (shifted, "negative values inside"),
    ],
)  # fmt: skip
def test_what_is_strange_gets_a_warning(
    brain_values: Make, save: Save, tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], words: str
) -> None:
    brain = prepare_brain(save(tmp_path / "odd.nii.gz", change(brain_values()).astype(np.float32)), **GRID)
    assert any(words in text for text in brain.warnings), brain.warnings
    assert torch.isfinite(brain.volume).all()


def test_small_units_are_noticed(brain_values: Make, save: Save, tmp_path: Path) -> None:
    brain = prepare_brain(save(tmp_path / "small.nii.gz", brain_values(), np.diag([0.4, 0.4, 0.4, 1.0])), **GRID)
    assert any("brain of 1 mL" in text for text in brain.warnings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (np.zeros_like, "same value 0 in every voxel"),
        (lambda v: np.full_like(v, 7.0), "same value 7 in every voxel"),
        (lambda v: (v > 0).astype(np.float32), "same value 1 all over the brain"),
        (lambda v: np.stack([v, v], -1), "holds 2 frames"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(
    brain_values: Make, save: Save, tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], words: str
) -> None:
    path = save(tmp_path / "bad.nii.gz", change(brain_values()))
    with pytest.raises(InputError, match=words):
        prepare_brain(path)

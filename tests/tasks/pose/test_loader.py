from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from equivox.errors import InputError
from equivox.geometry.rotations import random_rotations, rotation_about
from equivox.geometry.space import Volume
from equivox.tasks.pose.augment import warp_published
from equivox.tasks.pose.augment_space import turned_crop, warp
from equivox.tasks.pose.loader import (
    RotateSamples,
    SegmentSamples,
    head_from_ras,
    on_working_grid,
    published_crop,
    read_labelled,
    rotation_of,
)
from equivox.tasks.pose.published_grid import centered_cube
from equivox.tasks.pose.train_config import rotate_preset, segment_preset
from equivox.tasks.pose.train_layout import Annotated, Pair

Angles = tuple[float, float, float]


@pytest.fixture
def published(fixture_path: Callable[[str], Path]) -> dict[str, Tensor]:
    with np.load(fixture_path("e3pose/25_loader.npz")) as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files if file[name].dtype.kind in "fiu"}


def write(path: Path, values: Tensor, *, voxel_size_mm: float = 3.0, affine: Tensor | None = None) -> Path:
    place = torch.diag(torch.tensor([voxel_size_mm] * 3 + [1.0])) if affine is None else affine
    image = nibabel.Nifti1Image(values.numpy().astype(np.float32), place.double().numpy())
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def ellipsoid(shape: tuple[int, int, int] = (24, 22, 20)) -> tuple[Tensor, Tensor]:
    """A head of three unequal axes with a bright nose at +y, and its mask."""
    axes = [torch.arange(n) - (n - 1) / 2 for n in shape]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    mask = (x / 5) ** 2 + (y / 7) ** 2 + (z / 4) ** 2 < 1
    image = 20.0 + 100.0 * mask + 80.0 * torch.exp(-(x**2 + (y - 6) ** 2 + (z - 1) ** 2) / 6) + 2.0 * z
    return image, mask.long()


def example(tmp_path: Path, *, affine: Tensor | None = None, angles: Angles = (0.0, 0.0, 0.0)) -> Annotated:
    image, labels = ellipsoid()
    pair = Pair("h", write(tmp_path / "h.nii", image, affine=affine), write(tmp_path / "l.nii", labels, affine=affine))
    return Annotated(pair, angles)


def test_evaluation_sample_holds_the_published_numbers(published: dict[str, Tensor]) -> None:
    image, mask = published_crop(published["image"], published["label"].long(), size=16, name="s03_f00")
    rotation = rotation_of(published["euler_xyz_deg"].tolist())
    assert_close(image, published["eval_image"], atol=1e-5, rtol=0)
    assert torch.equal(mask.to(torch.uint8), published["eval_mask"][0])
    assert_close(rotation.float(), published["eval_rot"], atol=1e-6, rtol=0)


def test_warped_sample_holds_the_published_numbers(published: dict[str, Tensor]) -> None:
    rotation = rotation_of(published["euler_xyz_deg"].tolist())
    crop, inside = published["preproc_image"][None], published["preproc_mask"] == 1
    image, mask, target = warp_published(crop, inside, rotation, published["aug_matrix"])
    assert_close(image[0], published["aug_image"], atol=1e-5, rtol=0)
    assert torch.equal(mask.to(torch.uint8), published["aug_mask"])
    assert_close(target, published["aug_rot_target"], atol=1e-6, rtol=0)


def test_f20_the_shown_crop_without_rotation_is_that_of_inference(generator: torch.Generator) -> None:
    image, labels = ellipsoid()
    image, mask = image[2:], labels[2:] == 1  # the cube reaches beyond the field of view
    crop, inside, _ = turned_crop(image[None], mask, torch.eye(3), size=16)
    low, high = crop.amin(), crop.amax()
    assert_close(
        (crop[0] - low) / (high - low), centered_cube(image, mask, torch.ones_like(mask), size=16), atol=1e-5, rtol=0
    )
    assert 0.1 < float(inside.double().mean()) < 0.25


def test_f20_a_warp_before_the_crop_smears_no_border_plane() -> None:
    image, labels = torch.rand(30, 30, 30, generator=torch.Generator().manual_seed(1)) + 1.0, torch.zeros(30, 30, 30)
    labels[10:20, 10:20, 10:20] = 1
    shift = torch.tensor([4.0, 0.0, 0.0])

    def copies(crop: Tensor) -> int:
        return sum(bool(torch.equal(crop[i], crop[i + 1])) for i in range(crop.shape[0] - 1))

    crop, _, _ = turned_crop(image[None], labels == 1, torch.eye(3), size=15, shift_voxels=shift)
    assert copies(crop[0]) == 0
    matrix = torch.eye(4)
    matrix[0, 3] = 4.0
    tight, _ = published_crop(image, labels.long(), size=15, name="cube")
    assert copies(warp(tight, matrix)[0]) == 4  # the published way


def test_f20_turning_the_content_and_turning_the_crop_agree(generator: torch.Generator) -> None:
    image, labels = ellipsoid((33, 33, 33))
    quarter = rotation_about("z", 90.0)
    crop, _, _ = turned_crop(image[None], labels == 1, quarter, size=12)
    turned_image = image.flip(1).transpose(0, 1)  # content at (x, y) goes to (-y, x)
    turned_labels = labels.flip(1).transpose(0, 1)
    expected, _, _ = turned_crop(turned_image[None], turned_labels == 1, torch.eye(3), size=12)
    assert_close(crop, expected, atol=1e-4, rtol=0)


def test_f19_crops_at_the_border_stay_cubes_centred_on_the_object() -> None:
    image, labels = ellipsoid((24, 22, 20))
    image, labels = image[8:], labels[8:]  # the field of view ends at the head's side
    published_shape = published_crop(image, labels, size=16, name="cut")[0].shape[1:]
    assert len(set(published_shape)) > 1
    crop, inside, _ = turned_crop(image[None], labels == 1, torch.eye(3), size=16)
    assert tuple(crop.shape) == (1, 16, 16, 16)
    index = inside.nonzero()
    assert_close(
        (index.amin(0) + index.amax(0)).double() / 2, torch.full((3,), 7.5, dtype=torch.float64), atol=0.5, rtol=0
    )


def test_the_target_turns_with_the_content(tmp_path: Path) -> None:
    samples = RotateSamples(
        [example(tmp_path, angles=(20.0, -30.0, 40.0))],
        rotate_preset("equivox").with_values(image_size_voxels=24, n_levels=1, shift_voxels=0.0),
        training=True,
        seed=3,
    )
    plain = RotateSamples(samples.examples, samples.settings, training=False, seed=3).sample(0, 0)
    drawn = samples.sample(5, 0)
    # the nose (the brightest spot) lies where the change of target says that it went
    turn = drawn["head_from_image"].mT @ plain["head_from_image"]

    def nose(image: Tensor) -> Tensor:
        center = (torch.tensor(image.shape) - 1) / 2
        weight = (image / image.amax()) ** 12
        place = torch.stack(torch.meshgrid(*[torch.arange(n) for n in image.shape], indexing="ij"), -1) - center
        direction = (weight[..., None] * place).sum((0, 1, 2))
        return direction / direction.norm()

    assert float(nose(drawn["image"][0]) @ (turn @ nose(plain["image"][0]))) > 0.9


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIL", "ASR"])
def test_annotations_follow_the_reorientation_of_their_volume(codes: str, generator: torch.Generator) -> None:
    ras = Volume(torch.rand(1, 4, 5, 6, generator=generator), torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0])).double())
    stored = ras.reorient(codes)
    truth = random_rotations(1, generator=generator)[0]
    # the same axes of the head written in the stored array's axes; in a left-handed array they make a reflection, whose
    # left-right axis an annotator (who writes angles, hence rotations) must have flipped
    in_array = truth @ stored.direction
    if float(torch.linalg.det(in_array)) < 0:
        in_array = in_array * torch.tensor([[-1.0], [1.0], [1.0]], dtype=torch.float64)
    assert_close(head_from_ras(in_array, stored), truth)


def test_f24_shifts_are_millimetres_whatever_the_voxel_size(tmp_path: Path) -> None:
    image, labels = ellipsoid()
    reach = []
    for name, preset, size in (("a", "published", 3.0), ("b", "published", 1.5), ("c", "equivox", 3.0)):
        folder = tmp_path / name
        folder.mkdir()
        pair = Pair(
            "h", write(folder / "h.nii", image, voxel_size_mm=size), write(folder / "l.nii", labels, voxel_size_mm=size)
        )
        settings = segment_preset(preset).with_values(  # type: ignore[arg-type]
            crop_size_voxels=40,
            voxel_size_mm=size,
            translation_mm=12.0,
            rotation_deg=0.0,
            flipping=False,
            scaling_lower_bound=1.0,
            scaling_upper_bound=1.0,
        )
        samples = SegmentSamples([pair], settings, training=True, seed=0)
        centers = [(samples.sample(epoch, 0)["labels"] == 1).nonzero().double().mean(0) for epoch in range(12)]
        moved = (torch.stack(centers) - torch.stack(centers).mean(0)) * size
        reach.append(float(moved.abs().max()))
    # 12 x 3 draws of U(-12, 12) mm reach beyond 10 mm; a shift divided by the voxel size twice would stay below 4
    assert all(9.0 < r < 16.0 for r in reach), reach


@pytest.mark.parametrize("preset", ["published", "equivox"])
def test_a_sample_depends_on_seed_epoch_and_position_alone(tmp_path: Path, preset: str) -> None:
    head = example(tmp_path)
    settings = rotate_preset(preset).with_values(image_size_voxels=12, n_levels=1)  # type: ignore[arg-type]
    first = RotateSamples([head] * 3, settings, training=True, seed=1)
    second = RotateSamples([head] * 3, settings, training=True, seed=1)
    second.sample(0, 2)  # what was drawn before does not matter
    assert torch.equal(first.sample(4, 1)["image"], second.sample(4, 1)["image"])
    assert torch.equal(first.sample(4, 1)["head_from_image"], second.sample(4, 1)["head_from_image"])
    assert not torch.equal(first.sample(4, 1)["head_from_image"], first.sample(5, 1)["head_from_image"])
    other = RotateSamples([head] * 3, settings, training=True, seed=2)
    assert not torch.equal(first.sample(4, 1)["head_from_image"], other.sample(4, 1)["head_from_image"])


@pytest.mark.parametrize("preset", ["published", "equivox"])
def test_segment_samples_are_cubes_in_zero_to_one_with_the_labels_along(tmp_path: Path, preset: str) -> None:
    settings = segment_preset(preset).with_values(crop_size_voxels=24, randomise_res=True)  # type: ignore[arg-type]
    samples = SegmentSamples([example(tmp_path).pair], settings, training=True, seed=1)
    for epoch in range(4):
        sample = samples.sample(epoch, 0)
        assert tuple(sample["image"].shape) == (1, 24, 24, 24)
        assert float(sample["image"].amin()) == 0.0
        assert 0.99 < float(sample["image"].amax()) <= 1.0
        inside = sample["image"][0][sample["labels"] == 1]
        assert float(inside.mean()) > float(sample["image"][0][sample["labels"] == 0].mean())
    plain = SegmentSamples([example(tmp_path).pair], settings, training=False, seed=1).sample(0, 0)
    assert torch.equal(plain["labels"][:, 1:23, 2:22].long(), ellipsoid()[1])


def test_on_working_grid_is_what_inference_sees(tmp_path: Path) -> None:
    image, labels = ellipsoid()
    affine = torch.diag(torch.tensor([-2.0, 3.0, 4.0, 1.0]))
    pair = Pair("h", write(tmp_path / "h.nii", image, affine=affine), write(tmp_path / "l.nii", labels, affine=affine))
    moved = on_working_grid(read_labelled(pair, voxel_size_mm=3.0), 3.0)
    assert moved.image.axis_codes == "RAS"
    assert moved.image.shape == (16, 22, 27)
    assert tuple(moved.labels.shape) == moved.image.shape
    mass = moved.image.world_from_voxel((moved.labels == 1).nonzero().double()).mean(0)
    stored = read_labelled(pair, voxel_size_mm=3.0)
    assert_close(mass, stored.image.world_from_voxel((stored.labels == 1).nonzero().double()).mean(0), atol=0.5, rtol=0)


def test_npz_pairs_read_without_unpickling(tmp_path: Path) -> None:
    image, labels = ellipsoid()
    np.savez(tmp_path / "h.npz", volume=image.numpy())
    np.savez(tmp_path / "l.npz", labels=labels.numpy())
    labelled = read_labelled(Pair("h", tmp_path / "h.npz", tmp_path / "l.npz"), voxel_size_mm=2.0)
    assert labelled.image.voxel_size_mm == (2.0, 2.0, 2.0)
    assert torch.equal(labelled.labels, labels)
    np.savez(tmp_path / "bad.npz", volume=np.array([{}], dtype=object))
    with pytest.raises(InputError, match=r"no \.npz file of plain arrays"):
        read_labelled(Pair("h", tmp_path / "bad.npz", tmp_path / "l.npz"), voxel_size_mm=2.0)
    np.savez(tmp_path / "two.npz", a=image.numpy(), b=image.numpy())
    with pytest.raises(InputError, match="holds 2 3D arrays"):
        read_labelled(Pair("h", tmp_path / "two.npz", tmp_path / "l.npz"), voxel_size_mm=2.0)


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    image, labels = ellipsoid()
    good = write(tmp_path / "h.nii", image)
    other_shape = Pair("h", good, write(tmp_path / "s.nii", labels[1:]))
    with pytest.raises(InputError, match=r"23 x 22 x 20 voxels, its volume h\.nii has 24 x 22 x 20"):
        read_labelled(other_shape, voxel_size_mm=3.0)
    elsewhere = Pair("h", good, write(tmp_path / "e.nii", labels, voxel_size_mm=2.0))
    with pytest.raises(InputError, match=r"mm from its volume h\.nii"):
        read_labelled(elsewhere, voxel_size_mm=3.0)
    empty = Annotated(Pair("h", good, write(tmp_path / "z.nii", labels * 0)), (0.0, 0.0, 0.0))
    for preset in ("published", "equivox"):
        samples = RotateSamples([empty], rotate_preset(preset), training=True, seed=0)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="no voxel with the label 1"):
            samples.sample(0, 0)
    dark = Annotated(Pair("h", write(tmp_path / "d.nii", -image), write(tmp_path / "l.nii", labels)), (0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="no value above 0"):
        RotateSamples([dark], rotate_preset("published"), training=False, seed=0).sample(0, 0)
    many = Pair("h", good, write(tmp_path / "m.nii", labels * 5))
    with pytest.raises(InputError, match="label 5, the network 3 classes; pass --n-output-channels 6"):
        SegmentSamples([many], segment_preset("equivox"), training=False, seed=0).sample(0, 0)

"""Grids of the published pipeline against the original's numbers (fixtures 09 and 10)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.errors import InputError
from equivox.geometry.space import Volume
from equivox.tasks.pose.published_grid import (
    bounding_box,
    crop_or_pad,
    object_box,
    resample_axes,
    resample_to_spacing,
    rotation_input,
    segmentation_input,
)

FindFixture = Callable[[str], Path]


@pytest.mark.parametrize("case", [0, 1, 2])
def test_segmentation_input_is_the_original_one(case: int, fixture_path: FindFixture) -> None:
    with np.load(fixture_path("e3pose/10_preprocess_seg.npz")) as file:
        numbers = {name.removeprefix(f"case{case}_"): file[name] for name in file.files if f"case{case}" in name}
    volume = Volume(torch.from_numpy(numbers["image"])[None], torch.from_numpy(numbers["affine"]))
    out = segmentation_input(volume, size=int(numbers["crop_size"]))
    np.testing.assert_allclose(out.data.numpy(), numbers["out"], atol=1e-5)
    np.testing.assert_allclose(out.affine.numpy(), numbers["out_affine"], atol=1e-9)
    np.testing.assert_allclose(volume.direction.numpy(), numbers["rot_from_aff"], atol=1e-9)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_rotation_input_is_the_original_one(case: int, fixture_path: FindFixture) -> None:
    with np.load(fixture_path("e3pose/09_crop.npz")) as file:
        numbers = {name.removeprefix(f"case{case}_"): file[name] for name in file.files if f"case{case}" in name}
    image, mask = torch.from_numpy(numbers["vol"]), torch.from_numpy(numbers["lab"]) == 1
    box = bounding_box(mask)
    np.testing.assert_array_equal(box.start, numbers["bbox_min"])
    np.testing.assert_array_equal(np.array(box.stop) - 1, numbers["bbox_max"])
    part = object_box(mask)
    np.testing.assert_array_equal(part.shape, numbers["cropped_shape"])
    first = image[part.slices][:3, :3, :3]
    np.testing.assert_array_equal(first.numpy(), numbers["crop_first_voxels"])
    final, labels = rotation_input(image, mask, size=16)
    assert final.shape == numbers["final_vol_size16"].shape
    np.testing.assert_allclose(final.numpy(), numbers["final_vol_size16"], atol=1e-5)
    np.testing.assert_array_equal(labels.numpy(), numbers["final_lab_size16"] == 1)


def test_a_linear_field_survives_resampling_and_its_affine() -> None:
    affine = torch.tensor([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 4.0, 2], [0, 0, 0, 1]], dtype=torch.float64)
    empty = Volume(torch.zeros(1, 12, 11, 9, dtype=torch.float64), affine)
    index = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in empty.shape), indexing="ij"), -1)
    slope = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    volume = Volume((empty.world_from_voxel(index) @ slope)[None], affine)
    fine = resample_to_spacing(volume, 2.5)
    inner = torch.tensor([[1.0, 2, 3], [4, 5, 6], [5, 3, 10]], dtype=torch.float64)
    values = torch.stack([fine.data[0][tuple(p)] for p in inner.long().tolist()])
    torch.testing.assert_close(values, fine.world_from_voxel(inner) @ slope)


def test_crop_or_pad_puts_the_odd_voxel_in_front_and_moves_the_origin() -> None:
    volume = Volume(torch.arange(1.0, 6.0).reshape(1, 5, 1, 1).expand(1, 5, 4, 4), torch.eye(4, dtype=torch.float64))
    out = crop_or_pad(volume, [8, 1, 4])
    assert out.data[0, :, 0, 0].tolist() == [0, 0, 1, 2, 3, 4, 5, 0]
    assert out.affine[:3, 3].tolist() == [-2, 2, 0]


def test_samples_beyond_the_last_edge_are_zero() -> None:
    ones = torch.ones(1, 5, 1, 1)
    assert resample_axes(ones, [2.0, 1.0, 1.0])[0, :, 0, 0].tolist() == [1, 1, 1]
    assert resample_axes(ones, [3.4, 1.0, 1.0])[0, :, 0, 0].tolist() == [1, 0]


def test_an_empty_mask_is_refused_in_words() -> None:
    with pytest.raises(InputError, match="mask is empty"):
        rotation_input(torch.ones(4, 4, 4), torch.zeros(4, 4, 4, dtype=torch.bool))


def test_more_channels_are_refused() -> None:
    with pytest.raises(InputError, match="2 channels"):
        segmentation_input(Volume(torch.ones(2, 4, 4, 4), torch.eye(4, dtype=torch.float64)))

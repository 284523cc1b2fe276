from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from equivox.geometry.rotations import rotation_angle, rotation_from_euler_xyz
from equivox.tasks.pose.augment_space import (
    draw_affine,
    draw_rotation_published,
    draw_rotation_uniform,
    draw_shift,
    rigid_matrix,
    warp,
)


@pytest.fixture
def published(fixture_path: Callable[[str], Path]) -> dict[str, Tensor]:
    with np.load(fixture_path("e3pose/12_euler_transform.npz")) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files if file[name].dtype.kind in "fiu"}


def test_euler_angles_of_the_annotations_are_about_fixed_axes_x_y_z(published: dict[str, Tensor]) -> None:
    rotation = rotation_from_euler_xyz(torch.deg2rad(published["euler_xyz_deg"]))
    assert_close(rotation, published["matrix_extrinsic_xyz"], atol=1e-6, rtol=0)


def test_the_warp_of_the_augmentation_has_the_other_order(published: dict[str, Tensor]) -> None:
    expected = published["transform_txyz"]
    made = torch.stack(
        [
            rigid_matrix(angles, matrix[:3, 3])
            for angles, matrix in zip(published["euler_params"], expected, strict=True)
        ]
    )
    assert_close(made, expected, atol=1e-6, rtol=0)


def test_warp_holds_the_published_numbers(published: dict[str, Tensor]) -> None:
    matrix = published["warp_matrix"]
    volume, labels = published["warp_vol"][..., 0][None], published["warp_lab"][..., 0][None]
    assert_close(warp(volume, matrix)[0], published["warp_out_linear"][..., 0], atol=1e-6, rtol=0)
    assert torch.equal(warp(labels, matrix, interpolation="nearest")[0], published["warp_out_nearest"][..., 0])


def test_a_warp_by_a_cube_rotation_permutes_the_voxels(generator: torch.Generator) -> None:
    image = torch.rand(1, 6, 6, 6, generator=generator)
    turned = warp(image, rigid_matrix(torch.tensor([0.0, 0.0, 90.0]), torch.zeros(3)))
    # content at (x, y) goes to (-y, x)
    assert_close(turned, image.flip(2).transpose(1, 2), atol=1e-6, rtol=0)


def test_f3_rotations_are_uniform(generator: torch.Generator) -> None:
    drawn = torch.stack([draw_rotation_uniform(180.0, generator=generator) for _ in range(20_000)])
    angles = torch.rad2deg(rotation_angle(drawn))
    # the standard error of the mean of 20,000 draws is 0.25 degrees
    assert float(angles.mean()) == pytest.approx(126.5, abs=0.5)
    assert float((angles > 120).double().mean()) == pytest.approx(0.61, abs=0.015)
    assert float((drawn[:, 2, 2] < 0).double().mean()) == pytest.approx(0.5, abs=0.015)


def test_f3_the_published_draw_is_kept_for_comparison_and_is_not_uniform(generator: torch.Generator) -> None:
    drawn = torch.stack([draw_rotation_published(90.0, generator=generator) for _ in range(4000)])
    angles = torch.rad2deg(rotation_angle(drawn))
    assert float(angles.mean()) == pytest.approx(83.4, abs=1.5)
    assert int((drawn[:, 2, 2] < 0).sum()) == 0  # the z axis never points downwards


def test_uniform_rotations_keep_to_their_limit(generator: torch.Generator) -> None:
    angles = torch.stack([rotation_angle(draw_rotation_uniform(30.0, generator=generator)) for _ in range(200)])
    assert 20.0 < float(torch.rad2deg(angles.max())) <= 30.0 + 1e-6


@pytest.mark.parametrize(("outside", "corner"), [("border", 1.0), ("minimum", -2.0), ("zeros", 0.0)])
def test_what_comes_in_from_outside(outside: str, corner: float) -> None:
    image = torch.ones(1, 5, 5, 5)
    image[0, 2, 2, 2] = -2.0
    far = torch.eye(4, dtype=torch.float64)
    far[0, 3] = 4.0
    moved = warp(image, far, outside=outside)  # type: ignore[arg-type]
    assert float(moved[0, 0, 0, 0]) == corner
    assert float(moved[0, 4, 0, 0]) == 1.0


def test_an_affine_scales_before_it_turns_and_shifts_last(generator: torch.Generator) -> None:
    shift = draw_shift(3.0, generator=generator)
    rotation = draw_rotation_uniform(180.0, generator=generator)
    matrix = draw_affine(scaling=(0.5, 1.3), rotation=rotation, translation_voxels=shift, generator=generator)
    assert_close(matrix[:3, 3], shift)
    scales = matrix[:3, :3].norm(dim=0)
    assert_close(matrix[:3, :3] / scales, rotation)
    assert bool(((scales >= 0.5) & (scales <= 1.3)).all())
    assert float((scales - scales.mean()).abs().max()) > 1e-3

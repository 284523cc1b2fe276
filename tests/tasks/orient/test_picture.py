from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from equivox.geometry.rotations import random_rotations
from equivox.simulate.ctf import Microscope, ctf
from equivox.simulate.point_particle import PointParticle, project_points
from equivox.tasks.orient.picture import (
    Sampling,
    centre_contrast,
    normalise_background,
    resample_pictures,
    sampling_matrix,
    standardise,
)
from equivox.tasks.orient.transfer import Imaging, spread_image, transfer_of


def centroid(picture: torch.Tensor) -> tuple[float, float]:
    """(x, y) of the brightness, in pixels from the picture's middle."""
    axis = torch.arange(picture.shape[-1], dtype=picture.dtype) - (picture.shape[-1] - 1) / 2
    total = picture.sum()
    return float((picture.sum(0) * axis).sum() / total), float((picture.sum(1) * axis).sum() / total)


@pytest.mark.parametrize(
    ("box", "pixel", "side", "wanted"), [(64, 2.0, 33, 3.3), (65, 2.0, 33, 3.3), (32, 4.0, 25, 3.0)]
)
def test_a_bright_dot_on_the_boxs_centre_comes_to_the_pictures_middle(
    box: int, pixel: float, side: int, wanted: float
) -> None:
    """The box's centre is pixel n // 2, the picture's (side - 1) / 2: no half pixel is lost."""
    axis = torch.arange(box, dtype=torch.float32) - box // 2
    dot = torch.exp(-0.5 * (axis[:, None] ** 2 + axis**2) * pixel**2 / 6.0**2)
    picture = resample_pictures(dot[None], Sampling(box, pixel, side, wanted))[0]
    assert int(picture.argmax()) == side * side // 2
    assert max(abs(value) for value in centroid(picture)) < 0.01
    moved = resample_pictures(dot.roll(3, 1)[None], Sampling(box, pixel, side, wanted))[0]
    assert centroid(moved)[0] == pytest.approx(3 * pixel / wanted, abs=0.02)
    assert centroid(moved)[1] == pytest.approx(0.0, abs=0.01)


def test_resampled_pictures_are_those_of_the_particle_at_the_other_pixel_size(generator: torch.Generator) -> None:
    points = torch.randn(15, 3, generator=generator) * 12.0
    particle = PointParticle(points, torch.ones(15), 4.0)
    poses = random_rotations(3, generator=generator)
    even = project_points(particle, poses, side=64, pixel_size_angstrom=2.0, shifts_px=torch.full((3, 2), 0.5))
    direct = project_points(particle, poses, side=33, pixel_size_angstrom=3.3)
    found = resample_pictures(even, Sampling(64, 2.0, 33, 3.3))
    assert float((found - direct).abs().max() / direct.abs().max()) < 2e-3


def test_places_outside_the_box_are_background() -> None:
    matrix = sampling_matrix(Sampling(32, 1.0, 33, 2.0))
    assert float(matrix[:7].abs().max()) == 0.0
    assert float(matrix[-7:].abs().max()) == 0.0
    assert_close(matrix[16].sum(), torch.tensor(1.0))


def test_normalisation_is_that_of_relion(generator: torch.Generator) -> None:
    images = torch.randn(5, 48, 48, generator=generator) * 7.0 + 100.0
    axis = torch.arange(48) - 24
    images[:, (axis[:, None] ** 2 + axis**2) < 64] += 30.0
    found = normalise_background(images)
    outside = (axis[:, None] ** 2 + axis**2) > 18**2
    assert_close(found[:, outside].mean(1), torch.zeros(5), atol=1e-4, rtol=0)
    assert_close(found[:, outside].std(1), torch.ones(5), atol=1e-4, rtol=0)
    assert bool((centre_contrast(images) > 10).all())
    assert bool((centre_contrast(-images) < -10).all())
    assert_close(standardise(images).flatten(1).std(1), torch.ones(5))


def test_the_transfer_of_a_table_is_that_of_each_particles_own_microscope() -> None:
    angles = torch.tensor([30.0, 0.0, -60.0], dtype=torch.float64)
    defocus = torch.tensor([15000.0, 9000.0, 21000.0], dtype=torch.float64)
    voltage = torch.tensor([300.0, 200.0, 300.0], dtype=torch.float64)
    same = torch.ones(3, dtype=torch.float64)
    imaging = Imaging(defocus + 400.0, defocus, angles, same * 5.0, voltage, same * 2.7, same * 0.1)
    found = transfer_of(imaging, 24, 2.5)
    for index in range(3):
        expected = ctf(
            (24, 24), 2.5, Microscope(float(voltage[index]), 2.7, 0.1), defocus_u_angstrom=defocus[index] + 400.0,
            defocus_v_angstrom=defocus[index], defocus_angle_deg=angles[index],
            phase_shift_deg=torch.tensor(5.0, dtype=torch.float64),
        )  # fmt: skip
        assert_close(found[index], expected)
    assert_close(imaging.select(torch.tensor([2, 0])).voltage_kv, voltage[[2, 0]])
    point = spread_image(transfer_of(imaging, 33, 3.0), 33)
    assert_close(point, point.flip(-1, -2), atol=1e-12, rtol=0)  # about its middle, as a transfer without coma is

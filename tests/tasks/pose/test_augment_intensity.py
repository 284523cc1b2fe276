from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from equivox.geometry.space import Volume
from equivox.tasks.pose.augment_band import (
    apply_band,
    band_of_slice,
    draw_band,
    draw_position,
    object_boundary,
    published_spacing,
)
from equivox.tasks.pose.augment_intensity import (
    add_noise,
    apply_bias,
    apply_gamma,
    clip_percentiles,
    draw_bias,
    lower_resolution,
    percentile,
    rescale,
)
from equivox.tasks.pose.published_grid import crop_or_pad, resample_axes


@pytest.fixture
def published(fixture_path: Callable[[str], Path]) -> dict[str, Tensor]:
    with np.load(fixture_path("e3pose/13_augment.npz")) as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files if file[name].dtype.kind in "fi"}


def test_rescaling_and_percentiles_hold_the_published_numbers(published: dict[str, Tensor]) -> None:
    assert_close(rescale(published["normalize_input"]), published["normalize"], atol=1e-5, rtol=0)
    low, high = published["perc"].tolist()
    assert_close(
        clip_percentiles(published["normalize_input"], low, high), published["normalize_perc"], atol=1e-5, rtol=0
    )


def test_bias_field_holds_the_published_numbers(published: dict[str, Tensor]) -> None:
    out = apply_bias(published["bias_image"], published["bias_coefficients"])
    assert_close(out, published["bias_out"], atol=1e-5, rtol=0)


def test_gamma_holds_the_published_numbers(published: dict[str, Tensor]) -> None:
    out = apply_gamma(published["image"], float(published["gamma"].log()))
    assert_close(out, published["gamma_out"], atol=1e-5, rtol=0)


def test_spin_history_band_holds_the_published_numbers(published: dict[str, Tensor]) -> None:
    band = band_of_slice(
        published["spin_orientation"],
        published["spin_center"],
        thickness_mm=3.0,
        seconds_since=1.0,
        t1_seconds=float(published["spin_T1"]),
        widening=6.0 / 3.0,
    )
    image = published["image"]
    out = apply_band(image, band, published_spacing(image.shape[1:], 3.0))
    assert_close(out, published["spin_out"], atol=1e-5, rtol=0)


def test_low_resolution_holds_the_published_numbers(published: dict[str, Tensor]) -> None:
    factor = float(published["lowres_spacing"]) / 3.0
    assert_close(resample_axes(published["lowres_image"], [factor] * 3), published["lowres_down"], atol=1e-5, rtol=0)
    assert_close(lower_resolution(published["lowres_image"], factor), published["lowres_up"], atol=1e-5, rtol=0)


def test_crop_or_pad_holds_the_published_numbers(published: dict[str, Tensor]) -> None:
    affine = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    out = crop_or_pad(Volume(published["image"], affine), published["croporpad_target"].tolist())
    assert_close(out.data, published["croporpad_out"], atol=1e-5, rtol=0)
    assert_close(out.affine, published["croporpad_affine"], atol=1e-9, rtol=0)


@pytest.mark.parametrize("fraction", [0.0, 0.005, 0.3, 0.5, 0.995, 1.0])
def test_f17_percentiles_agree_with_quantile_where_that_works(fraction: float, generator: torch.Generator) -> None:
    image = torch.randn(7, 11, 13, generator=generator, dtype=torch.float64)
    assert percentile(image, fraction) == pytest.approx(float(torch.quantile(image, fraction)), abs=1e-12)


def test_f17_percentiles_work_above_two_to_the_24_voxels(generator: torch.Generator) -> None:
    image = torch.rand(257, 256, 256, generator=generator)
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(image.flatten(), 0.5)
    assert percentile(image, 0.005) == pytest.approx(0.005, abs=2e-4)
    assert percentile(image, 0.995) == pytest.approx(0.995, abs=2e-4)


def test_f21_the_boundary_is_in_space_not_in_the_plane() -> None:
    cube = torch.zeros(17, 17, 17, dtype=torch.bool)
    cube[4:13, 4:13, 4:13] = True
    in_plane, in_space = object_boundary(cube, "in_plane"), object_boundary(cube, "3d")
    # the middle of the face across axis 0: an edge of the object that only the boundary in space can see
    assert bool(in_space[4, 8, 8])
    assert not bool(in_plane[4, 8, 8])
    assert bool(in_plane[8, 4, 8])
    turned = object_boundary(cube.permute(2, 0, 1), "3d").permute(1, 2, 0)
    assert torch.equal(turned, in_space)


def test_f21_bands_of_strength_up_to_one_never_make_an_image_negative(generator: torch.Generator) -> None:
    mask = torch.zeros(12, 12, 12, dtype=torch.bool)
    mask[3:9, 3:9, 3:9] = True
    image = torch.rand(1, 12, 12, 12, generator=generator)
    lowest_of_ours, lowest_published = [], []
    for _ in range(30):
        for top, lowest in ((1.0, lowest_of_ours), (1.5, lowest_published)):
            band = draw_band(
                mask, strength=(0.5, top), sigma_mm=(2.0, 4.0), boundary="3d", position="uniform", generator=generator
            )
            assert band is not None
            lowest.append(float(apply_band(image, band, (3.0, 3.0, 3.0)).min()))
    assert min(lowest_of_ours) >= 0.0
    assert min(lowest_published) < -0.05


def test_f21_positions_are_what_their_names_say(generator: torch.Generator) -> None:
    edge_heavy = torch.tensor([draw_position("edge_heavy", generator=generator) for _ in range(4000)])
    uniform = torch.tensor([draw_position("uniform", generator=generator) for _ in range(4000)])

    def shares(values: Tensor) -> tuple[float, float]:
        outside = ((values < 0) | (values > 1)).double().mean()
        middle = ((values > 0.3) & (values < 0.7)).double().mean()
        return float(outside), float(middle)

    # the published sampler: 13 % outside [0, 1], 14 % in the middle 40 %
    assert shares(edge_heavy) == pytest.approx((0.133, 0.14), abs=0.025)
    assert shares(uniform) == pytest.approx((0.0, 0.4), abs=0.025)


def test_a_mask_without_boundary_gives_no_band(generator: torch.Generator) -> None:
    empty = torch.zeros(5, 5, 5, dtype=torch.bool)
    assert (
        draw_band(
            empty, strength=(0.5, 1.0), sigma_mm=(1.0, 2.0), boundary="3d", position="uniform", generator=generator
        )
        is None
    )


def test_noise_and_bias_are_drawn_from_the_generator_alone() -> None:
    image = torch.zeros(1, 8, 8, 8)
    first = add_noise(image, 0.5, generator=torch.Generator().manual_seed(1))
    again = add_noise(image, 0.5, generator=torch.Generator().manual_seed(1))
    other = add_noise(image, 0.5, generator=torch.Generator().manual_seed(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.std()) == pytest.approx(0.5, rel=0.1)
    coefficients = draw_bias(0.5, generator=torch.Generator().manual_seed(1))
    assert coefficients.shape == (20,)
    assert 0.0 <= float(coefficients.min()) <= float(coefficients.max()) <= 0.5

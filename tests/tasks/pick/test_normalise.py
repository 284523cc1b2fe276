from __future__ import annotations

import math

import pytest
import torch

from equivox.tasks.pick.normalise import HOT_SIGMA, normalise_micrograph, pixel_range


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_scale_and_offset_of_the_counts_do_not_matter() -> None:
    image = noise(180, 150)
    first = normalise_micrograph(image, radius_px=5.0)
    assert torch.allclose(normalise_micrograph(37.0 * image - 400.0, radius_px=5.0), first, atol=1e-3)
    assert abs(float(first.median())) < 0.02
    assert float(first.std()) == pytest.approx(1.0, abs=0.05)


def test_an_ice_gradient_is_taken_away() -> None:
    image = noise(300, 300)
    y = torch.linspace(-1, 1, 300)[:, None]
    x = torch.linspace(-1, 1, 300)[None, :]
    tilted = image + 4.0 * y + 3.0 * x * x
    plain, found = (normalise_micrograph(one, radius_px=5.0) for one in (image, tilted))
    assert float((plain - found)[30:-30, 30:-30].abs().mean()) < 0.12
    assert float(tilted.std()) > 2.0


def test_gold_beads_and_hot_pixels_leave_the_rest_as_it_was() -> None:
    image = noise(240, 240)
    spoiled = image.clone()
    y, x = torch.arange(240)[:, None], torch.arange(240)[None, :]
    for row, column in ((60, 60), (70, 160), (180, 100), (200, 205)):
        spoiled[((y - row) ** 2 + (x - column) ** 2) < 81] = -60.0
    clean, found = (normalise_micrograph(one, radius_px=6.0) for one in (image, spoiled))
    apart = torch.ones(240, 240, dtype=torch.bool)
    for row, column in ((60, 60), (70, 160), (180, 100), (200, 205)):
        apart &= ((y - row) ** 2 + (x - column) ** 2) > 400
    assert float((clean - found)[apart].abs().mean()) < 0.15
    assert float(found.min()) == -5.0
    globally = (spoiled - spoiled.mean()) / spoiled.std()
    assert float(globally[apart].std()) < 0.2  # what plain standardisation would make of the same image


def test_carbon_takes_neither_the_level_nor_the_scale_of_the_ice_and_is_itself_quiet() -> None:
    image = noise(300, 300)
    carbon = image.clone()
    carbon[:, 200:] = 6.0 * noise(300, 100, seed=1) - 20.0
    clean, found = (normalise_micrograph(one, radius_px=5.0) for one in (image, carbon))
    assert float((clean - found)[:, :150].abs().mean()) < 0.1
    assert float(found[:, :150].std()) == pytest.approx(1.0, abs=0.1)
    assert float(found[:, 240:].std()) < 2.0


def test_a_mask_excludes_pixels() -> None:
    image = noise(120, 120)
    keep = torch.ones(120, 120)
    keep[:40] = 0.0
    spoiled = image.clone()
    spoiled[:40] = 1e4
    found = normalise_micrograph(spoiled, radius_px=4.0, keep=keep)
    assert float(found[:40].abs().max()) == 0.0
    assert float(found[45:].std()) == pytest.approx(1.0, abs=0.1)


def test_pixels_that_are_not_finite_become_the_median_and_hot_ones_are_cut() -> None:
    pixels = noise(1000)
    pixels[3], pixels[4], pixels[5] = math.nan, math.inf, 1e6
    found = pixel_range(pixels)
    assert found.not_finite == 2
    cut = found.cut(pixels[None].clone())[0]
    assert cut[3] == pytest.approx(found.median)
    assert float(cut[5]) == pytest.approx(found.median + HOT_SIGMA * found.sigma, rel=1e-5)
    assert math.isnan(pixel_range(torch.full((4,), math.nan)).sigma)
    with pytest.raises(ValueError, match="constant"):
        normalise_micrograph(torch.full((20, 20), 3.0), radius_px=3.0)
    counts = torch.zeros(100)
    counts[:10] = 5.0
    assert pixel_range(counts).sigma > 0.0

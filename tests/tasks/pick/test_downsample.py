from __future__ import annotations

import numpy as np
import pytest
import torch

from equivox.tasks.pick.downsample import fourier_resample, resample_size


def waves(rows: int, columns: int, *, ky: int, kx: int, phase: float) -> torch.Tensor:
    """A plane wave with whole periods."""
    y = torch.arange(rows, dtype=torch.float64)[:, None] / rows
    x = torch.arange(columns, dtype=torch.float64)[None, :] / columns
    return torch.cos(2 * torch.pi * (ky * y + kx * x) + phase)


@pytest.mark.parametrize("shape", [(96, 64), (97, 64), (96, 65), (75, 63)])
@pytest.mark.parametrize("size", [(24, 16), (25, 17), (24, 21), (31, 16)])
def test_a_band_limited_image_is_sampled_exactly_with_sample_0_in_its_place(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    full, small = torch.zeros(shape, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    for ky, kx, phase in ((0, 0, 0.3), (3, -5, 1.0), (-4, 2, 2.0), (7, 7, 0.1)):
        full += waves(*shape, ky=ky, kx=kx, phase=phase)
        small += waves(*size, ky=ky, kx=kx, phase=phase)
    found = fourier_resample(full.numpy(), size)
    assert torch.allclose(found.double(), small, atol=1e-5)


@pytest.mark.parametrize(("shape", "size"), [((32, 32), (48, 64)), ((31, 33), (40, 40)), ((30, 20), (30, 40))])
def test_padding_the_spectrum_passes_through_the_old_samples(shape: tuple[int, int], size: tuple[int, int]) -> None:
    image = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grown = fourier_resample(image.numpy(), (shape[0] * 2, shape[1] * 3))
    assert torch.allclose(grown[::2, ::3].double(), image, atol=1e-4)
    assert fourier_resample(image.numpy(), size).mean() == pytest.approx(float(image.mean()), abs=1e-5)


def test_the_mean_is_kept_and_the_same_size_changes_nothing() -> None:
    image = np.random.default_rng(0).normal(7.0, 2.0, (301, 207))
    assert float(fourier_resample(image, (60, 51)).mean()) == pytest.approx(image.mean(), abs=1e-4)
    assert torch.allclose(fourier_resample(image, (301, 207)), torch.from_numpy(image).float(), atol=1e-4)


def test_a_bright_dot_lies_at_its_place_times_the_factor_within_a_tenth_of_a_pixel() -> None:
    y, x = np.mgrid[0:465, 0:450]
    image = np.exp(-0.5 * ((y - 301.4) ** 2 + (x - 99.7) ** 2) / 6.0**2)
    size = resample_size(465, 4.0), resample_size(450, 4.0)
    small = fourier_resample(image, size).double()
    rows, columns = torch.arange(size[0]).double(), torch.arange(size[1]).double()
    weight = small.clamp_min(0.05) - 0.05
    center = float((weight.sum(1) * rows).sum() / weight.sum()), float((weight.sum(0) * columns).sum() / weight.sum())
    assert center[0] * 465 / size[0] == pytest.approx(301.4, abs=0.1)
    assert center[1] * 450 / size[1] == pytest.approx(99.7, abs=0.1)


def test_integers_big_endian_and_blocks_of_rows_give_the_same() -> None:
    image = np.random.default_rng(0).integers(-100, 100, (600, 80), dtype=np.int16)
    reference = fourier_resample(image.astype(np.float64), (75, 20))
    assert torch.equal(fourier_resample(image.astype(">i2"), (75, 20)), reference)
    with pytest.raises(ValueError, match="image"):
        fourier_resample(image[None], (3, 3))
    with pytest.raises(ValueError, match="positive"):
        fourier_resample(image, (0, 3))

"""The simulated crop set: shares, places and noise as its description says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from equivox.errors import ConfigError
from equivox.simulate.crop_set import KINDS, GaussianMixture, crop_particle, crop_set, project_mixture

GAUSSIANS = Path(__file__).parents[1] / "fixtures" / "projection2d" / "projection_gaussians.npz"


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_mixtures_project_as_the_reference() -> None:
    data = {key: torch.from_numpy(value) for key, value in np.load(GAUSSIANS).items()}
    for name, side in (("filter9", 9), ("particle33", 33)):
        centres, sigma, weights = (data[f"{name}_{key}"].float() for key in ("centres_xyz", "sigma", "amp"))
        mixture = GaussianMixture(centres.expand(8, -1, 3), sigma.expand(8, -1), weights.expand(8, -1))
        found = project_mixture(mixture, data[f"{name}_matrix"], torch.zeros(8, 2), side_px=side)
        assert_close(found.double(), data[f"{name}_projection"], atol=2e-5, rtol=1e-5)


def test_shares_and_noise() -> None:
    particle = crop_particle(generator=draw(0))
    found = crop_set(1000, particle, snr=0.1, generator=draw(1))
    assert found.images.shape == (1000, 45, 45)
    counts = torch.bincount(found.kind, minlength=4).tolist()
    assert counts == [100, 270, 225, 405]
    assert torch.equal(found.positive, found.kind == 0)
    variance = found.images.var(dim=(1, 2))
    assert float(variance[found.kind == KINDS.index("noise")].mean()) == pytest.approx(1.0, rel=0.01)
    assert float(variance[found.positive].mean()) == pytest.approx(1.1, rel=0.01)
    again = crop_set(1000, particle, snr=0.1, generator=draw(1))
    assert torch.equal(found.images, again.images)


def test_positives_lie_in_the_middle_and_the_others_do_not() -> None:
    """The energy of a noise-free crop: within 13 pixels of the middle for positives, beyond for displaced ones."""
    particle = crop_particle(generator=draw(0))
    found = crop_set(400, particle, snr=1e6, generator=draw(2))
    axis = torch.arange(45) - 22
    middle = (axis[:, None] ** 2 + axis[None, :] ** 2) < 12**2
    energy = found.images.square()
    share = energy[:, middle].sum(1) / energy.sum(dim=(1, 2))
    assert float(share[found.kind == 0].min()) > float(share[found.kind == 1].max())
    assert float(share[found.kind == 2].min()) > 0.5


def test_a_set_that_makes_no_sense_is_refused() -> None:
    particle = crop_particle(generator=draw(0))
    with pytest.raises(ConfigError, match="at least 10"):
        crop_set(5, particle, snr=0.1, generator=draw(0))
    with pytest.raises(ConfigError, match="positive number"):
        crop_set(50, particle, snr=0.0, generator=draw(0))

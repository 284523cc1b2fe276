"""Micrographs and stacks of particles: the truth that comes with them is true."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from equivox.errors import ConfigError
from equivox.simulate.ctf import Microscope
from equivox.simulate.micrograph import simulate_micrograph
from equivox.simulate.micrograph_config import MicrographSimulation
from equivox.simulate.orientations import draw_rotations
from equivox.simulate.particle_stack import ParticleSimulation, noise_for, normalised, simulate_stack
from equivox.simulate.scenery import coloured_noise, place, smooth_gradient
from equivox.simulate.specimen import Specimen, specimen_from_atoms

QUIET = {"decoys": 0.0, "broken": 0.0, "contaminants": 0.0, "carbon": 0.0, "gold": 0.0, "structural_noise": 0.0}


@pytest.fixture(scope="module")
def specimen() -> Specimen:
    draw = torch.Generator().manual_seed(1)
    points = torch.randn(120, 3, generator=draw, dtype=torch.float64) * torch.tensor([40.0, 25.0, 15.0]).double()
    weights = torch.full((120,), 50.0, dtype=torch.float64)
    return specimen_from_atoms("ellipsoid", points - points.mean(0), weights, resolution_angstrom=16.0)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_particles_are_dark_where_the_truth_says(specimen: Specimen) -> None:
    config = MicrographSimulation(size_px=(300, 420), particles=40, defocus_angstrom=(2000.0, 4000.0), **QUIET)
    found = simulate_micrograph(specimen, config, Microscope(amplitude_contrast=0.9), generator=draw())
    assert found.image.shape == (300, 420)
    x, y = found.positions_px.round().long().unbind(1)
    centres = found.clean[y, x]
    assert float((centres < 0).float().mean()) > 0.9
    assert float(centres.mean()) < -2.0 * float(found.clean.std())
    mirrored = found.clean[299 - y, x]
    assert abs(float(mirrored.mean())) < 0.3 * abs(float(centres.mean()))


def test_the_ratio_of_variances_is_the_one_asked_for(specimen: Specimen) -> None:
    config = MicrographSimulation(size_px=(400, 400), particles=25, snr=0.5, ice_gradient=0.0, **QUIET)
    found = simulate_micrograph(specimen, config, Microscope(), generator=draw(3))
    noise = found.image - found.clean
    assert float(noise.std()) == pytest.approx(1.0, rel=1e-4)
    side = int(np.ceil(0.75 * 2 * specimen.radius_angstrom / 8.0)) * 2 + 2
    half = side // 2
    variances = []
    for x, y in found.positions_px.round().long().tolist():
        variances.append(found.clean[max(y - half, 0) : y + half, max(x - half, 0) : x + half].var())
    assert float(torch.stack(variances).mean()) == pytest.approx(0.5, rel=0.02)


def test_the_pose_is_that_of_the_picture(specimen: Specimen) -> None:
    """Noise-free, almost in focus for low frequencies: the patch about a particle is its own projection, inverted."""
    config = MicrographSimulation(
        size_px=(200, 200),
        particles=1,
        defocus_angstrom=(0.0, 0.0),
        astigmatism_angstrom=0.0,
        ice_gradient=0.0,
        **QUIET,
    )
    found = simulate_micrograph(specimen, config, Microscope(amplitude_contrast=0.999, cs_mm=0.0), generator=draw(4))
    x, y = found.positions_px[0].round().long().tolist()
    shift = (found.positions_px[0] - found.positions_px[0].round()).float()
    own = specimen.images(found.rotations, side=24, pixel_size_angstrom=8.0, shifts_px=shift[None])[0]
    patch = -found.clean[y - 12 : y + 12, x - 12 : x + 12]
    correlation = np.corrcoef(patch.flatten().numpy(), own.flatten().numpy())[0, 1]
    assert correlation > 0.999


def test_no_two_particles_are_nearer_than_the_spacing_and_none_on_carbon(specimen: Specimen) -> None:
    config = MicrographSimulation(size_px=(500, 500), particles=60, carbon=1.0, touching=0.5)
    found = simulate_micrograph(specimen, config, Microscope(), generator=draw(5))
    everything = torch.cat([found.positions_px, found.decoys_px])
    distance = torch.cdist(everything, everything) + 1e6 * torch.eye(len(everything))
    least = 0.9 * 2 * specimen.radius_angstrom / 8.0
    assert float(distance.min()) >= least - 1e-6
    assert 0.05 < found.carbon < 0.6
    assert len(found.decoys_px) == round(0.15 * len(found.positions_px)) + round(0.1 * len(found.positions_px))
    touching = torch.cdist(found.positions_px, found.positions_px) + 1e6 * torch.eye(len(found.positions_px))
    assert float((touching.amin(1) < 1.25 * least).float().mean()) > 0.4


def test_the_same_seed_gives_the_same_micrograph(specimen: Specimen) -> None:
    config = MicrographSimulation(size_px=(160, 160), particles=5, carbon=0.5, gold=0.5)
    first, second = (simulate_micrograph(specimen, config, Microscope(), generator=draw(9)) for _ in range(2))
    assert torch.equal(first.image, second.image)
    other = simulate_micrograph(specimen, config, Microscope(), generator=draw(10))
    assert not torch.equal(first.image, other.image)


def test_a_particle_larger_than_the_field_is_refused(specimen: Specimen) -> None:
    with pytest.raises(ConfigError, match="larger pixels"):
        simulate_micrograph(specimen, MicrographSimulation(size_px=(40, 400)), Microscope(), generator=draw())


@pytest.mark.parametrize(
    "options",
    [{"snr": 0.0}, {"carbon": 2.0}, {"defocus_angstrom": (2.0, 1.0)}, {"size_px": (8, 8)}, {"particles": -1}],
)
def test_ranges_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        MicrographSimulation(**options)  # type: ignore[arg-type]


def test_particles_have_the_noise_asked_for_and_a_normal_background(specimen: Specimen) -> None:
    config = ParticleSimulation(box_px=48, pixel_size_angstrom=6.0, snr=0.2, with_ctf=False, shift_px=0.0)
    deviation = noise_for(specimen, config, Microscope(), generator=draw())
    stack = simulate_stack(60, specimen, config, Microscope(), noise_deviation=deviation, generator=draw(1))
    clean = specimen.images(stack.rotations, side=48, pixel_size_angstrom=6.0)
    assert float(clean.var(dim=(1, 2)).mean()) / deviation**2 == pytest.approx(0.2, rel=0.1)
    axis = torch.arange(48) - 24
    outside = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt() > 18
    assert_close(stack.images[:, outside].mean(1), torch.zeros(60), atol=1e-5, rtol=0)
    assert_close(stack.images[:, outside].std(1), torch.ones(60), atol=1e-4, rtol=0)
    assert float(stack.images[:, 20:28, 20:28].mean()) > 0.5  # protein is white
    dark = ParticleSimulation(box_px=48, pixel_size_angstrom=6.0, with_ctf=False, contrast="dark")
    images = simulate_stack(20, specimen, dark, Microscope(), noise_deviation=deviation, generator=draw(1)).images
    assert float(images[:, 20:28, 20:28].mean()) < -0.5
    assert torch.isfinite(normalised(torch.zeros(1, 16, 16))).all()


def test_the_shift_says_where_the_particle_lies(specimen: Specimen) -> None:
    config = ParticleSimulation(box_px=72, pixel_size_angstrom=6.0, with_ctf=False, shift_px=6.0)
    stack = simulate_stack(8, specimen, config, Microscope(), noise_deviation=1e-9, generator=draw(2))
    axis = torch.arange(72) - 36.0
    mass = (stack.images - stack.images[:, :1, :1]).clamp_min(0)
    total = mass.sum(dim=(1, 2))
    x, y = (mass.sum(1) * axis).sum(1) / total, (mass.sum(2) * axis).sum(1) / total
    assert_close(torch.stack([x, y], dim=1), stack.shifts_px, atol=0.15, rtol=0)


def test_orientations_are_distributed_as_said() -> None:
    uniform = draw_rotations(4000, "uniform", generator=draw())[:, 2]
    assert float(uniform.mean(0).norm()) < 0.05
    view = (1.0, -2.0, 0.5)
    some = draw_rotations(4000, "preferred", generator=draw(), preferred_view=view, view_spread_deg=10.0)
    direction = torch.tensor(view).double() / torch.tensor(view).double().norm()
    angle = torch.rad2deg((some[:, 2] @ direction).clamp(-1, 1).arccos())
    assert float(angle.square().mean().sqrt()) == pytest.approx(10.0 * 2**0.5, rel=0.05)
    histogram = torch.zeros(6, 8)
    histogram[1, 3], histogram[4, 7] = 1.0, 3.0
    views = draw_rotations(4000, "measured", generator=draw(), view_histogram=histogram)[:, 2]
    rows = ((views[:, 2] + 1) * 3).floor().long()
    columns = ((torch.atan2(views[:, 1], views[:, 0]) / torch.pi + 1) * 4).floor().long()
    counts = torch.bincount(rows * 8 + columns, minlength=48).view(6, 8)
    assert int(counts[1, 3] + counts[4, 7]) == 4000
    assert float(counts[4, 7]) == pytest.approx(3000, abs=110)
    for kind in ("uniform", "preferred", "measured"):
        turned = draw_rotations(500, kind, generator=draw(), view_histogram=histogram)  # type: ignore[arg-type]
        assert_close(turned @ turned.mT, torch.eye(3).double().expand(500, 3, 3), atol=1e-12, rtol=0)
        in_plane = torch.atan2(turned[:, 1, 2], -turned[:, 0, 2])
        assert float(torch.polar(torch.ones_like(in_plane), in_plane).mean().abs()) < 0.12
    with pytest.raises(ConfigError, match="histogram"):
        draw_rotations(1, "measured", generator=draw())
    with pytest.raises(ConfigError, match="direction"):
        draw_rotations(1, "preferred", generator=draw(), preferred_view=(0.0, 0.0, 0.0))


def test_noise_has_the_spectrum_it_names() -> None:
    noise = coloured_noise((256, 256), pixel_size_angstrom=2.0, scale_angstrom=40.0, generator=draw())
    assert float(noise.std()) == pytest.approx(1.0, rel=1e-5)
    power = torch.fft.rfft2(noise).abs().square()
    frequency = (torch.fft.fftfreq(256, 2.0)[:, None] ** 2 + torch.fft.rfftfreq(256, 2.0)[None] ** 2).sqrt()
    low, high = (frequency - 0.02).abs() < 0.004, (frequency - 0.2).abs() < 0.004
    expected = (1 + (0.2 * 40) ** 2) / (1 + (0.02 * 40) ** 2)
    assert float(power[low].mean() / power[high].mean()) == pytest.approx(expected, rel=0.25)
    white = coloured_noise((64, 64), pixel_size_angstrom=2.0, scale_angstrom=0.0, generator=draw(1))
    assert torch.equal(white, torch.randn((64, 64), generator=draw(1)))
    field = smooth_gradient((40, 60), generator=draw())
    assert float(field.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float((field[1:] - field[:-1]).abs().max()) < 0.5


def test_a_full_field_takes_what_fits() -> None:
    found = place(100, (100, 100), 20.0, generator=draw())
    assert 10 < len(found) < 40
    assert len(place(5, (10, 10), 2.0, generator=draw(), margin_px=6.0)) == 0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from equivox.errors import ConfigError, InputError
from equivox.formats.mrc import write_mrc
from equivox.geometry.rotations import random_rotations
from equivox.metrics.orientation import view_coverage
from equivox.simulate.point_particle import PointParticle, project_points
from equivox.tasks.orient.config import OrientTraining, PictureConfig, SimulationConfig
from equivox.tasks.orient.evaluate import EvaluateConfig, evaluate_orientations, write_evaluation
from equivox.tasks.orient.evaluate_page import render_evaluation, summary_lines
from equivox.tasks.orient.particle import is_particle_source, load_particle
from equivox.tasks.orient.samples import SimulatedPictures, poses_from_histogram
from equivox.tasks.orient.train import TrainData, TrainRun, train_orientation

pytest.importorskip("lightning")


def little(**values: Any) -> OrientTraining:
    return OrientTraining().with_values(
        **{
            "side": 25, "pixel_size_angstrom": 3.0, "coarse_channels": (3, 4), "fine_channels": (3, 4), "features": 8,
            "particles": 40, "validation": 20, "epochs": 2, "batch_size": 20, **values,
        }
    )  # fmt: skip


@pytest.fixture
def density_map(particle: PointParticle, tmp_path: Path) -> Path:
    """The particle as a map: voxel n // 2 is its centre."""
    axis = (torch.arange(40) - 20).float() * 2.0
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).flip(-1)  # [z, y, x] of (x, y, z)
    squared = (grid[..., None, :] - particle.positions_angstrom).square().sum(-1)
    density = (torch.exp(-0.5 * squared / 16.0) * particle.weights).sum(-1)
    path = tmp_path / "map.mrc"
    write_mrc(path, density.numpy().astype(np.float32), pixel_size_angstrom=2.0, kind="volume")
    return path


def test_training_from_particles_with_poses_gives_a_model_that_evaluates(make_stack: Any, tmp_path: Path) -> None:
    made = make_stack(tmp_path / "in", count=40, shift=2.0)
    trained = train_orientation(
        TrainData(data=str(made.table)), little(shift=True), TrainRun(out=tmp_path / "run"), command=["test"]
    )
    assert trained.counts == {"training": 36, "validation": 4}
    config = trained.model.config
    assert config["task"] == "orient"
    assert config["input"]["side"] == 25
    assert trained.model.certificate()["rotations_hold"]
    assert 0.5 <= config["output"]["temperature"] <= 10
    assert config["output"]["slope"] > 0
    evaluation = evaluate_orientations(EvaluateConfig(particles=str(made.table), model=str(trained.model.path)))
    paths = write_evaluation(evaluation, tmp_path / "ev", page=render_evaluation(evaluation), overwrite=False)
    document = json.loads(paths[0].read_text())
    assert document["particles"] == 40
    assert 0 < document["errors"]["mean_rad"] < np.pi
    assert document["median_shift_error_angstrom"] < 5.0
    assert len(paths[1].read_text().splitlines()) == 41
    assert any(line.startswith("mean error") for line in summary_lines(evaluation))


def test_a_training_that_was_cut_off_goes_on_exactly(density_map: Path, tmp_path: Path) -> None:
    data = TrainData(data=str(density_map))
    whole = train_orientation(data, little(), TrainRun(out=tmp_path / "whole", seed=3))
    seen: list[int] = []

    def stop(epoch: int, _: Any) -> None:
        seen.append(epoch)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_orientation(data, little(), TrainRun(out=tmp_path / "cut", seed=3), progress=stop)
    again = train_orientation(data, little(), TrainRun(out=tmp_path / "cut", seed=3, resume=True))
    assert seen == [0]
    first, second = (one.model.networks()["orientation"].state_dict() for one in (whole, again))
    for name in first:
        assert_close(first[name], second[name], atol=0, rtol=0)
    with pytest.raises(ConfigError, match="another lr"):
        train_orientation(data, little(lr=1e-2), TrainRun(out=tmp_path / "cut", seed=3, resume=True))


def test_a_map_becomes_points_with_the_same_pictures(
    particle: PointParticle, density_map: Path, generator: torch.Generator
) -> None:
    loaded = load_particle(density_map)
    poses = random_rotations(4, generator=generator)
    direct = project_points(particle, poses, side=25, pixel_size_angstrom=3.0)
    found = project_points(loaded.points, poses, side=25, pixel_size_angstrom=3.0)
    for one, other in zip(direct, found, strict=True):
        assert float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]) > 0.98


def test_chains_of_a_structure_are_centred_anew(shared_path: Any) -> None:
    path = shared_path("data/cryoem/structures/11as.pdb.gz")
    one, both = load_particle(path, chains="A").points, load_particle(path).points
    assert len(both.weights) == 2 * len(one.weights) == 654
    for points in (one, both):
        mean = (points.positions_angstrom * points.weights[:, None]).sum(0) / points.weights.sum()
        assert float(mean.abs().max()) < 1e-3
    assert is_particle_source("a.cif.gz")
    assert is_particle_source("a.mrc")
    assert not is_particle_source("a.mrcs")
    assert not is_particle_source("a.star")
    with pytest.raises(InputError, match="'Z' is none of them"):
        load_particle(path, chains="Z")


def test_simulated_pictures_depend_on_seed_epoch_and_position_alone(particle: PointParticle) -> None:
    simulation = SimulationConfig(particles=80, snr=(0.5, 1.0), defocus_angstrom=(8e3, 2e4))

    def make(*, seed: int = 1, training: bool = True) -> SimulatedPictures:
        return SimulatedPictures(particle, PictureConfig(side=25), simulation, seed=seed, training=training)

    one, other = make(), make()
    ahead = other.sample(2, 70)
    other.sample(0, 3)
    assert_close(one.sample(2, 70)["picture"], ahead["picture"])
    assert float((one.sample(1, 70)["picture"] - ahead["picture"]).abs().max()) > 0.1
    assert float((make(seed=2).sample(2, 70)["picture"] - ahead["picture"]).abs().max()) > 0.1
    judge = make(training=False)
    assert_close(judge.sample(5, 3)["rotation"], judge.sample(0, 3)["rotation"])
    assert ahead["picture"].mean().abs() < 1e-5
    assert ahead["picture"].std() == pytest.approx(1.0, abs=1e-4)


def test_the_second_channel_is_the_image_of_a_point(particle: PointParticle) -> None:
    picture = PictureConfig(side=25, transfer="channel")
    samples = SimulatedPictures(particle, picture, SimulationConfig(defocus_angstrom=(1e4, 2e4)), seed=0, training=True)
    found = samples.sample(0, 0)["picture"]
    assert found.shape == (2, 25, 25)
    assert_close(found[1], found[1].flip(-1, -2), atol=1e-5, rtol=0)  # about the picture's middle
    assert float((found[1] - found[1].roll(1, -1)).abs().max()) > 0.1


def test_views_by_histogram_fill_the_bins_asked_for(generator: torch.Generator) -> None:
    share = torch.zeros(12, 24, dtype=torch.float64)
    share[3, 7], share[10, 20] = 0.75, 0.25
    counts = view_coverage(poses_from_histogram(share, 4000, generator=generator)).counts
    assert int(counts[3, 7] + counts[10, 20]) == 4000
    assert int(counts[3, 7]) == pytest.approx(3000, abs=120)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"side": 24}, "odd"), ({"epochs": 0}, "epochs"), ({"lr": -1.0}, "lr"), ({"symmetry": "C0"}, "unknown"),
        ({"snr": (2.0, 1.0)}, "rising"), ({"head": "unimodal"}, "--no-fine"), ({"epoch": 3}, "did you mean 'epochs'"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        little(**values)


def test_a_table_without_poses_or_with_too_few_is_refused(make_stack: Any, tmp_path: Path) -> None:
    from equivox.formats.star import read_star, write_star

    made = make_stack(tmp_path / "in")
    with pytest.raises(InputError, match="at least 20"):
        train_orientation(TrainData(data=str(made.table)), little(), TrainRun(out=tmp_path / "run"))
    star = read_star(made.table)
    bare = star.block("particles").without_columns("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    write_star(made.table, star.with_block(bare))
    with pytest.raises(InputError, match="no orientations"):
        train_orientation(TrainData(data=str(made.table)), little(), TrainRun(out=tmp_path / "run"))


def test_odds_are_fitted_so_that_vain_confidence_becomes_honest(generator: torch.Generator) -> None:
    from equivox.metrics.orientation import reliability
    from equivox.nets.orientation_search import Calibration
    from equivox.tasks.orient.train_result import fit_odds

    chance = torch.rand(20_000, generator=generator)
    right = torch.rand(20_000, generator=generator) < chance
    vain = torch.sigmoid(0.5 * torch.logit(chance.clamp(1e-6, 1 - 1e-6)) + 0.8)
    slope, offset, _ = fit_odds(vain, right)
    assert slope == pytest.approx(2.0, rel=0.1)
    assert offset == pytest.approx(-1.6, rel=0.1)
    assert reliability(vain, right).error > 0.1
    assert reliability(Calibration(1.0, slope, offset).honest(vain), right).error < 0.02
    assert fit_odds(torch.full((3,), 0.7), torch.tensor([True, True, True]))[0] > 0  # no wrong one at all
    assert float(Calibration(1.0, 3.0, 2.0).honest(torch.zeros(1))) == 0.0

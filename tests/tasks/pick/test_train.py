from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from equivox.errors import ConfigError, InputError, ModelFolderError, OutputError
from equivox.tasks.load import load_model
from equivox.tasks.pick.config import PickSource, PickTraining
from equivox.tasks.pick.data import open_labelled
from equivox.tasks.pick.picker import PickModel, load_pick_model
from equivox.weights.folder import read_model_folder

pytest.importorskip("lightning")

from equivox.run.sampling import group_samples
from equivox.tasks.pick.samples import TrainingTiles
from equivox.tasks.pick.train import TrainRun, train_picker
from equivox.tasks.pick.train_course import PickCourse, network_fields, prior_of

NETWORK = {"architecture": "projected", "channels": [2], "kernel_sizes": [5, 5], "grid": "D4"}


def source(folder: Path, **options: Any) -> PickSource:
    return PickSource(
        **{
            "micrographs": (str(folder),), "coordinates": (str(folder / "labels.txt"),), "radius_angstrom": 60.0,
            **options,
        }
    )  # fmt: skip


def recipe(**options: Any) -> PickTraining:
    given = {"network": NETWORK, "radius_px": 6.0, "epochs": 2, "tiles_per_epoch": 4, "tile_outputs": 8, **options}
    return PickTraining(**given)


def test_a_model_folder_picks_knows_its_size_and_is_calibrated(picker: Path) -> None:
    folder = read_model_folder(picker)
    model = load_model(picker)
    assert isinstance(model, PickModel)
    assert model.calibration.fitted
    assert (model.input.radius_px, model.input.radius_angstrom) == (6.0, 60.0)
    assert folder.certificate()["rotations_hold"] is True
    assert folder.config["provenance"]["contrast"] == ["dark"]
    assert folder.config["provenance"]["validation"]["average_precision"] > 0.9
    card = (picker / "README.md").read_text()
    assert "average precision" in card
    assert "Not calibrated" not in card
    with pytest.raises(ModelFolderError, match="task"):
        load_pick_model("tetris")


def test_a_run_that_goes_on_ends_as_one_that_was_never_stopped(micrographs: Path, tmp_path: Path) -> None:
    whole = train_picker([source(micrographs)], recipe(epochs=3), TrainRun(out=tmp_path / "whole"))
    train_picker([source(micrographs)], recipe(epochs=2), TrainRun(out=tmp_path / "parts"))
    with pytest.raises(OutputError, match="--resume"):
        train_picker([source(micrographs)], recipe(epochs=3), TrainRun(out=tmp_path / "parts"))
    parts = train_picker([source(micrographs)], recipe(epochs=3), TrainRun(out=tmp_path / "parts", resume=True))
    assert whole.fitted.epochs == parts.fitted.epochs == 3
    first = (tmp_path / "whole" / "curves.csv").read_text().splitlines()
    assert len(first) == 4
    # the rate of an epoch bends with the number of epochs, so the second of two differs from the second of three
    assert first[1] == (tmp_path / "parts" / "curves.csv").read_text().splitlines()[1]
    with pytest.raises(ConfigError, match="another lr"):
        train_picker([source(micrographs)], recipe(epochs=3, lr=0.1), TrainRun(out=tmp_path / "parts", resume=True))
    record = json.loads((tmp_path / "parts" / "run.json").read_text())
    assert record["outcome"] == "done"
    assert record["data"]["training_labels"] == 60


@pytest.mark.parametrize("risk", ["binomial", "non-negative"])
def test_a_few_labels_and_a_number_teach_where_the_others_are(micrographs: Path, tmp_path: Path, risk: str) -> None:
    lines = (micrographs / "labels.txt").read_text().splitlines()
    few = tmp_path / "few.txt"
    few.write_text("\n".join([lines[0], *lines[1::2]]) + "\n")
    settings = recipe(
        risk=risk, expected_number=12.0, network={**NETWORK, "channels": [3], "kernel_sizes": [7, 7]}, epochs=4,
        tiles_per_epoch=32, batch_size=4, tile_outputs=20, lr=0.02, patience=None,
    )  # fmt: skip
    read = source(micrographs, coordinates=(str(few),))
    trained = train_picker([read], settings, TrainRun(out=tmp_path / "pu"))
    model = load_pick_model(trained.model.path)
    assert not model.calibration.fitted
    full = open_labelled(source(micrographs), radius_px=6.0, seed=0, split=False).validation
    from equivox.tasks.pick.train_result import judge_network

    judgement = judge_network(model.network, full, 6.0, [0.0] * len(full))
    assert judgement.area > 0.8  # of all particles, though half were never shown


def test_priors_and_numbers_that_cannot_be(micrographs: Path) -> None:
    read = open_labelled(source(micrographs), radius_px=6.0, seed=0).training
    settings = recipe(risk="binomial", expected_number=24.0)
    prior = prior_of(read, settings, stride_px=2)
    assert prior == pytest.approx(24 * max(1.0, torch.pi * 0.75**2) / (150 * 170 / 4), rel=1e-6)
    with pytest.raises(ConfigError, match="do not fit"):
        prior_of(read, recipe(risk="binomial", expected_number=24000.0), stride_px=2)
    with pytest.raises(ConfigError, match="fewer than the 12 labels"):
        prior_of(read, recipe(risk="binomial", expected_number=3.0), stride_px=2)
    assert prior_of(read, recipe(), stride_px=2) is None


def test_negatives_push_scores_down(micrographs: Path, tmp_path: Path) -> None:
    (tmp_path / "not.txt").write_text("image_name\tx_coord\ty_coord\n" + "mic_0\t85\t75\nmic_1\t20\t100\n")
    read = open_labelled(source(micrographs, negatives=(str(tmp_path / "not.txt"),)), radius_px=6.0, seed=0)
    everyone = (*read.training, *read.validation)
    assert sum(len(one.negatives_px) for one in everyone) == 2
    settings = recipe(risk="non-negative", expected_number=12.0)
    course = PickCourse(settings, prior=0.02, seed=0)
    chosen = [one for one in everyone if len(one.negatives_px)]
    tiles = TrainingTiles(chosen, settings, course.grid, seed=0, margins_px=[0.0] * len(chosen))
    group = group_samples([tiles.sample(0, position) for position in range(8)])[0]
    group["negative"][:] = 0.0  # every place is known to be empty
    with_them = course.training_values(group)["loss"].mean()
    group["negative"][:] = 100.0
    without = course.training_values(group)["loss"].mean()
    assert float(with_them.detach()) > float(without.detach())


def test_networks_by_name() -> None:
    assert network_fields({"preset": "ball_cryo45_3k", "grid": "d4opt-16"})["grid"] == "d4opt-16"
    assert network_fields(NETWORK)["channels_in"] == 1
    with pytest.raises(ConfigError, match="did you mean 'ball_cryo45_3k'"):
        network_fields({"preset": "ball_cryo45"})


def test_nothing_to_learn_from(micrographs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        train_picker([source(tmp_path / "nowhere.mrc")], recipe(), TrainRun(out=tmp_path / "a"))
    few = tmp_path / "few.txt"
    few.write_text("image_name\tx_coord\ty_coord\nmic_0\t20\t30\nmic_1\t50\t60\n")
    with pytest.raises(ConfigError, match="labels for training"):
        train_picker([source(micrographs, coordinates=(str(few),))], recipe(), TrainRun(out=tmp_path / "b"))
    assert not (tmp_path / "b").exists()

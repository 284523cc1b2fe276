from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from equivox.errors import ConfigError, InputError, OutputError
from equivox.run.training import network_weights
from equivox.tasks.shapes.config import DataConfig, ShapeTraining
from equivox.tasks.shapes.presets import shape_preset
from equivox.tasks.shapes.train import TrainRun, train_shapes
from equivox.weights.folder import read_model_folder

TETRIS = DataConfig(data="tetris")


def tiny(**values: object) -> ShapeTraining:
    """Our Tetris recipe, as small as it runs."""
    network = {"architecture": "shape_net", "fields": [[2, 1], [2, 1]], "features": 4}
    base = shape_preset("tetris-equivox").with_values(side=13, cell=1.5, network=network, epochs=4, validate_every=1)
    return base.with_values(**values)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "curves.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_training_leaves_a_model_folder_that_reads_back(tmp_path: Path) -> None:
    trained = train_shapes(TETRIS, tiny(), TrainRun(out=tmp_path / "run", device="cpu"))
    folder = read_model_folder(tmp_path / "run" / "model")
    assert folder.config["task"] == "shapes"
    assert folder.config["output"]["classes"][:2] == ["chiral 1", "chiral 2"]
    assert folder.config["input"]["side"] == 13
    assert folder.certificate()["rotations_hold"]
    logits = folder.networks()["classify"](torch.zeros(1, 1, 13, 13, 13))
    assert logits.shape == (1, 8)
    assert trained.counts == {"training": 8, "validation": 8}
    assert len(rows(tmp_path / "run")) == 4


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    straight = TrainRun(out=tmp_path / "straight", device="cpu", seed=3)
    train_shapes(TETRIS, tiny(), straight)
    cut = TrainRun(out=tmp_path / "cut", device="cpu", seed=3, resume=True)

    def stop(epoch: int, row: object) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_shapes(TETRIS, tiny(), cut, progress=stop)
    train_shapes(TETRIS, tiny(), cut)
    first, second = (network_weights(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("straight", "cut"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert rows(tmp_path / "straight") == rows(tmp_path / "cut")


def test_results_are_not_replaced_and_other_settings_not_mixed_in(tmp_path: Path) -> None:
    run = TrainRun(out=tmp_path / "run", device="cpu")
    train_shapes(TETRIS, tiny(epochs=1), run)
    with pytest.raises(OutputError, match="exists already"):
        train_shapes(TETRIS, tiny(epochs=1), run)
    with pytest.raises(ConfigError, match=r"begun with another lr \(0.03 then, 0.5 now\)"):
        train_shapes(TETRIS, tiny(epochs=2, lr=0.5), TrainRun(out=tmp_path / "run", device="cpu", resume=True))


def test_data_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pieces of Tetris, the network's input is of the kind 'points'"):
        train_shapes(TETRIS, shape_preset("cath-equivox"), TrainRun(out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()

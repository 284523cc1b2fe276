from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from equivox.errors import InputError, ModelFolderError
from equivox.tasks.load import load_model
from equivox.tasks.shapes.classifier import ShapeModel, open_shape_model
from equivox.tasks.shapes.config import DataConfig
from equivox.tasks.shapes.data import Shape
from equivox.tasks.shapes.evaluate import EvaluateConfig, evaluate_shapes, labelled_objects, write_evaluation
from equivox.tasks.shapes.evaluate_page import render_evaluation, summary_lines
from equivox.tasks.shapes.presets import shape_preset
from equivox.tasks.shapes.source_tetris import TetrisSource, tetris_volume
from equivox.tasks.shapes.train import TrainRun, train_shapes
from equivox.weights.folder import find_model, write_model_folder

CHANCE = 1 / 8
TETRIS = DataConfig(data="tetris")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quick form of the Tetris experiment: 19 voxels instead of 36, 40 epochs instead of 250, our network."""
    network = {
        "architecture": "shape_net", "fields": ((2, 2, 1), (6, 3, 2)), "kernel_sizes": (5, 3), "strides": (2, 1),
        "features": 24, "lowpass": 3.0,
    }  # fmt: skip
    settings = shape_preset("tetris-equivox").with_values(
        side=19, cell=2.5, network=network, epochs=40, decay_start=20, lr=0.05, validate_every=40
    )
    out = tmp_path_factory.mktemp("tetris")
    train_shapes(TETRIS, settings, TrainRun(out=out, device="cpu"))
    return out / "model"


@pytest.fixture(scope="module")
def asked(trained: Path) -> Any:
    config = EvaluateConfig(model=str(trained), data=TETRIS, rotations=4, curve_objects=2, retrieval=True)
    return evaluate_shapes(config, device="cpu")


def test_pieces_learnt_in_one_orientation_are_known_in_others(asked: Any) -> None:
    """By chance 1 in 8 is right; of 32 answers 12 or more would be so once in ten thousand times."""
    by_name = {one.name: one for one in asked.rotations.orientations}
    assert by_name["random, SO(3)"].accuracy > 12 / 32 > CHANCE
    cube = by_name["24 turns of the cube"]
    assert cube.change < 1e-4
    assert cube.spread == 0.0
    assert cube.accuracy == by_name["as they lie"].accuracy


def test_the_curve_begins_at_nothing_and_resampling_is_beside_it(asked: Any) -> None:
    curve = asked.rotations.curve
    assert curve[0].angle_deg == 0.0
    assert curve[0].change < 1e-4
    assert all(point.floor is not None and point.floor >= 0.0 for point in curve)
    assert max(point.change for point in curve) > 1e-3


def test_numbers_come_as_json_csv_and_a_page(asked: Any, tmp_path: Path) -> None:
    paths = write_evaluation(asked, tmp_path, page=render_evaluation(asked), overwrite=False)
    document = json.loads(paths[0].read_text())
    assert document["objects"] == 8
    assert document["chance"] == {"majority": CHANCE, "uniform": CHANCE}
    assert sum(map(sum, document["confusion"])) == 8
    assert document["retrieval"]["queries"] == 8
    lines = paths[1].read_text().splitlines()
    assert lines[0].startswith("id,true,label,probability,p_chiral 1")
    assert len(lines) == 9
    page = paths[2].read_text()
    assert page.count("data:image/svg+xml") == 3
    assert "For research, not a medical device" in page
    assert "24 turns of the cube" in page
    assert any(line.startswith("random, SO(3): accuracy") for line in summary_lines(asked))


def test_the_same_seed_gives_the_same_report(trained: Path) -> None:
    config = EvaluateConfig(model=str(trained), data=TETRIS, rotations=1, objects=2, curve_objects=1)
    first, second = (evaluate_shapes(config, device="cpu").as_dict() for _ in range(2))
    assert first == second


def test_a_model_is_loaded_by_its_task_and_asked_about_a_tensor(trained: Path, tmp_path: Path) -> None:
    model = load_model(trained)
    assert isinstance(model, ShapeModel)
    answer = model.predict(tetris_volume(3, 19, 2.5, False)[0])
    assert len(answer) == 1
    assert answer[0].label in model.classes
    assert sum(answer[0].probabilities.values()) == pytest.approx(1.0)
    assert answer[0].probability == max(answer[0].probabilities.values())
    with pytest.raises(InputError, match=r"the tensor has the shape \(2, 9, 9, 9\)"):
        model.predict(torch.zeros(2, 9, 9, 9))
    with pytest.raises(InputError, match="is empty"):
        model.predict(torch.zeros(9, 9, 9))
    with pytest.raises(InputError, match="NaN or infinite"):
        model.predict(torch.full((9, 9, 9), torch.nan))


def test_objects_do_not_change_each_other(trained: Path) -> None:
    model = open_shape_model(find_model(trained))
    source = TetrisSource(model.input)
    contents = [source.content(index) for index in range(3)]
    together = model.logits(contents)
    alone = torch.cat([model.logits([content]) for content in contents])
    assert torch.allclose(together, alone, atol=1e-4)


def test_a_model_of_another_task_or_kind_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="holds a model for the task 'pose'"):
        open_shape_model(find_model("fetal-head-epi"))
    folder = find_model(trained)
    write_model_folder(
        tmp_path / "mesh", name="mesh", task="shapes", behaviour="equivox", networks=folder.config["networks"],
        weights={"classify": folder.networks()["classify"].state_dict()}, card="", certificate={}, license_text="",
        extra={"input": {**folder.config["input"], "kind": "mesh"}, "output": folder.config["output"]},
    )  # fmt: skip
    with pytest.raises(InputError, match="pieces of Tetris, the network's input is of the kind 'mesh'"):
        evaluate_shapes(EvaluateConfig(model=str(tmp_path / "mesh"), data=TETRIS), device="cpu")
    write_model_folder(
        tmp_path / "few", name="few", task="shapes", behaviour="equivox", networks=folder.config["networks"],
        weights={"classify": folder.networks()["classify"].state_dict()}, card="", certificate={}, license_text="",
        extra={"input": folder.config["input"], "output": {"classes": ["a"]}},
    )  # fmt: skip
    with pytest.raises(ModelFolderError, match="does not name the classes of its network"):
        open_shape_model(find_model(tmp_path / "few"))


def test_a_class_that_the_model_has_not_seen_is_named(trained: Path) -> None:
    source = TetrisSource(open_shape_model(find_model(trained)).input)
    with pytest.raises(InputError, match="chiral 1/test is of the class 'chiral 1', which the model has not seen"):
        labelled_objects(source, "test", ("square", "line"))
    source.shapes = (*source.shapes, Shape(id="stranger", label=-1, split="test"))
    chosen, _, notes = labelled_objects(source, "test", source.classes)
    assert len(chosen) == 8
    assert notes == ["1 objects without a label are left out."]

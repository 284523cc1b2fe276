from __future__ import annotations

import json

import pytest

from equivox.errors import ConfigError
from equivox.tasks.shapes.config import DataConfig, InputConfig
from equivox.tasks.shapes.presets import PRESETS, shape_preset


def test_tetris_is_trained_as_published() -> None:
    recipe = shape_preset("tetris")
    assert (recipe.epochs, recipe.batch_size, recipe.orientation, recipe.select) == (250, 8, "fixed", "last")
    assert (recipe.input.side, recipe.input.cell, recipe.input.enlarge) == (36, 5.0, "zoom")
    assert recipe.rate(100) == 0.1
    assert recipe.rate(150) == pytest.approx(0.1 * 0.98**50)
    assert shape_preset("tetris-cnn").network["architecture"] == "tetris_cnn"


def test_shrec17_is_trained_as_published() -> None:
    recipe = shape_preset("shrec17")
    assert [recipe.rate(epoch) for epoch in (0, 499, 500, 999, 1000)] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])
    assert (recipe.balanced, recipe.batch_size, recipe.epochs, recipe.input.side) == (True, 32, 2000, 64)


@pytest.mark.parametrize(("reduction", "base", "penalty"), [(1, 0.94, 1e-8), (4, 0.985, 3.16e-8), (16, 0.996, 1e-7)])
def test_cath_is_trained_as_published_and_lengthens_with_the_reduction(
    reduction: int, base: float, penalty: float
) -> None:
    recipe = shape_preset("cath", reduction=reduction)
    assert (recipe.epochs, recipe.burn_in, recipe.reduction) == (100 * reduction, 40 * reduction, reduction)
    assert recipe.rate(40 * reduction) == 0.1
    assert recipe.rate(40 * reduction + 3) == pytest.approx(0.1 * base**3)
    assert (recipe.l1, recipe.l2, recipe.network["dropout"]) == (penalty, penalty, 0.1)
    plain = shape_preset("cath-cnn", reduction=reduction)
    assert plain.lr == 5e-4
    assert plain.network["architecture"] == "resnet34"


def test_a_cosine_begins_after_its_start_and_ends_at_a_hundredth() -> None:
    recipe = shape_preset("tetris-equivox").with_values(epochs=80, decay_start=40, lr=1.0, warmup=0)
    assert recipe.rate(40) == 1.0
    assert recipe.rate(60) == pytest.approx(0.505)
    assert recipe.rate(80) == pytest.approx(0.01)


def test_every_recipe_survives_json() -> None:
    for name in PRESETS:
        written = json.loads(json.dumps(shape_preset(name).as_dict()))
        assert InputConfig.from_dict(written["input"]) == shape_preset(name).input


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 0.0}, "lr is 0.0; give a number above 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"side": 0}, "side is 0"),
        ({"cell": 8.0}, "side is 29 voxels, the pieces need 32; give more --side"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"kind": "environment"}, "environments have 4"),
        ({"network": {}}, "the network has no architecture"),
        ({"epcohs": 3}, "unknown setting 'epcohs'; did you mean 'epochs'"),
        ({"select": "loss", "epochs": 80, "burn_in": 80}, "burn_in is 80 of 80 epochs"),
    ],
)
def test_settings_out_of_range_are_one_sentence(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shape_preset("tetris-equivox").with_values(**values)


def test_unknown_recipes_reductions_and_entries_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--preset 'cat' is unknown; did you mean 'cath'\?; known are tetris"):
        shape_preset("cat")
    with pytest.raises(ConfigError, match="there are eight pieces of Tetris"):
        shape_preset("tetris", reduction=2)
    with pytest.raises(ConfigError, match="the published recipe has 1, 2, 4, 8 and 16"):
        shape_preset("cath", reduction=3)
    with pytest.raises(ConfigError, match="unknown entry 'sides'; did you mean 'side'"):
        InputConfig.from_dict({"kind": "mesh", "side": 9, "sides": 3})
    with pytest.raises(ConfigError, match="lacks kind"):
        InputConfig.from_dict({"side": 9})
    with pytest.raises(ConfigError, match="--fold is 10"):
        DataConfig(data="x", fold=10)

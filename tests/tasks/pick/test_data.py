from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equivox.errors import ConfigError, InputError
from equivox.formats.mrc import write_mrc
from equivox.tasks.pick.config import PickInput, PickSource, PickTraining
from equivox.tasks.pick.data import open_labelled, require_labels
from equivox.tasks.pick.labels import fitted_labels, read_labels
from equivox.tasks.pick.prepare import prepare_micrograph
from equivox.tasks.pick.samples import TrainingTiles, WholeMicrographs
from equivox.tasks.pick.targets import FAR, distance_map, edge_weight, soft_target
from equivox.tasks.pick.tiles import ScoreGrid


def source(folder: Path, **options: Any) -> PickSource:
    return PickSource(
        **{
            "micrographs": (str(folder),), "coordinates": (str(folder / "labels.txt"),), "radius_angstrom": 60.0,
            **options,
        }
    )  # fmt: skip


def test_labels_lie_on_particles_which_are_dark_whatever_the_file_says(
    micrographs: Path, make_set: Callable[..., Path], tmp_path: Path
) -> None:
    bright = make_set(tmp_path / "bright", range(6), sign=1.0)
    for folder, contrast in ((micrographs, "dark"), (bright, "bright")):
        found = open_labelled(source(folder), radius_px=6.0, seed=0)
        assert found.contrast == contrast
        assert (len(found.training), len(found.validation), found.labels) == (5, 1, 72)
        for one in (*found.training, *found.validation):
            rows, columns = one.labels_px.round().long().unbind(1)
            assert float(one.image[rows, columns].mean()) < -1.0
            assert abs(float(one.image.median())) < 0.2


def test_the_split_is_by_micrograph_by_seed_or_by_table(micrographs: Path, tmp_path: Path) -> None:
    first, again, other = (open_labelled(source(micrographs), radius_px=6.0, seed=seed) for seed in (0, 0, 3))
    names = [[one.name for one in part.validation] for part in (first, again, other)]
    assert names[0] == names[1] != names[2]
    assert not {one.name for one in first.training} & set(names[0])
    table = tmp_path / "split.csv"
    table.write_text("micrograph,split\nmic_0,train\nmic_1,val\nmic_2,test\nmic_3,train\n")
    found = open_labelled(source(micrographs, split=str(table)), radius_px=6.0, seed=0)
    assert [Path(one.name).stem for one in found.training] == ["mic_0", "mic_3"]
    assert [Path(one.name).stem for one in found.validation] == ["mic_1"]
    measured = open_labelled(source(micrographs, split=str(table)), radius_px=6.0, seed=0, split=False)
    assert [Path(one.name).stem for one in measured.validation] == ["mic_1", "mic_2"]
    table.write_text("micrograph,split\nmic_0,holdout\n")
    with pytest.raises(InputError, match="column split"):
        open_labelled(source(micrographs, split=str(table)), radius_px=6.0, seed=0)


def test_labels_upside_down_are_refused_with_the_option_that_mends_them(
    make_set: Callable[..., Path], tmp_path: Path
) -> None:
    flipped = make_set(tmp_path / "flipped", range(4), flip=True)
    with pytest.raises(InputError, match="pass --flip-y"):
        open_labelled(source(flipped), radius_px=6.0, seed=0)
    mended = open_labelled(source(flipped, flip_y=True), radius_px=6.0, seed=0)
    assert mended.contrast == "dark"


def test_coordinates_beyond_the_image(micrographs: Path, tmp_path: Path) -> None:
    text = (micrographs / "labels.txt").read_text().splitlines()
    unbinned = tmp_path / "unbinned.txt"
    rows = [line.split("\t") for line in text[1:]]
    unbinned.write_text(
        "\n".join([text[0], *(f"{name}\t{float(x) * 4:.1f}\t{float(y) * 4:.1f}" for name, x, y in rows)])
    )
    with pytest.raises(InputError, match="--coordinate-scale"):
        open_labelled(source(micrographs, coordinates=(str(unbinned),)), radius_px=6.0, seed=0)
    scaled = source(micrographs, coordinates=(str(unbinned),), coordinate_scale=0.25)
    assert open_labelled(scaled, radius_px=6.0, seed=0).contrast == "dark"
    binned = tmp_path / "binned.txt"
    binned.write_text("\n".join([text[0], *(f"{name}\t{float(x) / 4:.1f}\t{float(y) / 4:.1f}" for name, x, y in rows)]))
    read = open_labelled(source(micrographs, coordinates=(str(binned),)), radius_px=6.0, seed=0)
    assert any("--coordinate-scale 4" in note for note in read.warnings)
    inside, notes = fitted_labels(
        torch.tensor([[5.0, 5.0], [6.0, 9.0], [-3.0, 4.0]]), (20, 20), flip_y=False, scale=1.0, name="a.mrc"
    )
    assert len(inside) == 2
    assert "1 of 3" in notes[0]


def test_names_that_fit_nothing_and_micrographs_without_labels_are_said(micrographs: Path, tmp_path: Path) -> None:
    some = tmp_path / "some.txt"
    some.write_text("image_name\tx_coord\ty_coord\nmic_0\t20\t30\nmic_1\t40\t50\nmic_77\t1\t1\n")
    found = open_labelled(source(micrographs, coordinates=(str(some),)), radius_px=6.0, seed=0)
    assert list(found.unmatched) == ["mic_77"]
    assert any("4 of 6 micrographs have no label" in text for text in found.warnings)
    assert any("fit no micrograph" in text for text in found.warnings)
    none = tmp_path / "none.txt"
    none.write_text("image_name\tx_coord\ty_coord\nx\t20\t30\n")
    with pytest.raises(InputError, match="None of the 1 micrograph names"):
        read_labels([none], [str(path) for path in micrographs.glob("*.mrc")])
    only = tmp_path / "only.txt"
    only.write_text("image_name\tx_coord\ty_coord\nmic_0\t20\t30\n")
    with pytest.raises(InputError, match="only micrograph with labels"):
        open_labelled(source(micrographs, coordinates=(str(only),)), radius_px=6.0, seed=0)
    with pytest.raises(ConfigError, match="2 labels"):
        require_labels(found.training + found.validation)


def test_a_mask_takes_places_away(micrographs: Path, tmp_path: Path) -> None:
    mask = np.ones((75, 85), dtype=np.int8)  # half the size: it covers the same field
    mask[:, :40] = 0
    write_mrc(tmp_path / "mic_0_mask.mrc", mask, pixel_size_angstrom=1.0)
    found = open_labelled(source(micrographs, masks=(str(tmp_path),)), radius_px=6.0, seed=0)
    masked = next(one for one in (*found.training, *found.validation) if one.name.endswith("mic_0.mrc"))
    assert masked.keep is not None
    assert float(masked.image[:, :78].abs().max()) == 0.0
    assert float(masked.image[:, 84:].std()) > 0.5
    write_mrc(tmp_path / "other.mrc", mask, pixel_size_angstrom=1.0)
    with pytest.raises(InputError, match="masks fits"):
        open_labelled(source(micrographs, masks=(str(tmp_path / "other.mrc"),)), radius_px=6.0, seed=0)


def test_prepared_micrographs_say_what_is_wrong(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(60, 60)).astype(np.float32)
    write_mrc(tmp_path / "a.mrc", image, pixel_size_angstrom=5.0)
    with pytest.raises(InputError, match="smaller than a particle"):
        prepare_micrograph(tmp_path / "a.mrc", radius_angstrom=400.0, radius_px=6.0)
    write_mrc(tmp_path / "constant.mrc", np.full((40, 40), 3, np.int8), pixel_size_angstrom=5.0)
    with pytest.raises(InputError, match="constant"):
        prepare_micrograph(tmp_path / "constant.mrc", radius_angstrom=30.0, radius_px=6.0)
    write_mrc(tmp_path / "unknown.mrc", image, pixel_size_angstrom=0.0)
    with pytest.raises(InputError, match="--pixel-size-angstrom"):
        prepare_micrograph(tmp_path / "unknown.mrc", radius_angstrom=30.0, radius_px=6.0)
    coarse = prepare_micrograph(tmp_path / "a.mrc", radius_angstrom=20.0, radius_px=6.0)
    assert coarse.image.shape == (90, 90)
    assert any("finer detail" in text for text in coarse.warnings)
    there = torch.tensor([[10.0, 20.0]], dtype=torch.float64)
    assert torch.allclose(coarse.to_file(coarse.to_working(there)), there)
    assert coarse.to_working(there)[0].tolist() == pytest.approx([15.0, 30.0])


def tiles_of(micrographs: Path, **options: Any) -> tuple[TrainingTiles, ScoreGrid]:
    read = open_labelled(source(micrographs), radius_px=6.0, seed=0)
    grid = ScoreGrid(21, 2)
    settings = PickTraining(
        **{"radius_px": 6.0, "tile_outputs": 24, "noise": 0.0, "contrast_jitter": 0.0, "tiles_per_epoch": 5, **options}
    )
    return TrainingTiles(read.training, settings, grid, seed=1, margins_px=[3.0] * len(read.training)), grid


@pytest.mark.parametrize("rotate", ["none", "quarter", "any"])
def test_tiles_are_dark_where_the_distance_is_small_however_they_are_turned(micrographs: Path, rotate: str) -> None:
    tiles, grid = tiles_of(micrographs, rotate=rotate, scale_jitter=0.2 if rotate == "any" else 0.0, labelled_tiles=1.0)
    inside, outside = [], []
    for position in range(len(tiles)):
        sample = tiles.sample(0, position)
        assert sample["image"].shape == (1, 67, 67)
        seen = sample["image"][0, grid.margin_px : -grid.margin_px : 2, grid.margin_px : -grid.margin_px : 2]
        assert seen.shape == sample["distance"].shape == sample["weight"].shape == (24, 24)
        counted = sample["weight"] > 0
        inside.append(seen[counted & (sample["distance"] < 0.6)])
        outside.append(seen[counted & (sample["distance"] > 1.5)])
    assert float(torch.cat(inside).mean()) < -1.3
    assert float(torch.cat(outside).mean()) > -0.2
    again = tiles.sample(0, 2)
    assert torch.equal(again["image"], tiles.sample(0, 2)["image"])
    assert not torch.equal(again["image"], tiles.sample(1, 2)["image"])


def test_tiles_beyond_the_edge_count_for_nothing(micrographs: Path) -> None:
    tiles, _ = tiles_of(micrographs, labelled_tiles=0.0, scale_jitter=0.0)
    weights = [tiles.sample(epoch, position)["weight"].mean() for epoch in range(4) for position in range(5)]
    assert min(weights) < 0.8
    assert max(weights) <= 1.0
    whole = WholeMicrographs(tiles.micrographs, tiles.margins_px).sample(0, 1)
    assert whole["image"].shape == (1, 150, 170)
    assert len(whole["labels"]) == 12


def test_targets_by_hand() -> None:
    labels = torch.tensor([[2.0, 3.0], [10.0, 10.0]])
    rows, columns = torch.tensor([0.0, 2.0]), torch.tensor([3.0, 7.0, 11.0])
    found = distance_map(labels, rows, columns, radius_px=2.0)
    assert found.tolist()[1] == pytest.approx([0.0, 2.0, 4.0])
    assert float(distance_map(torch.zeros(0, 2), rows, columns, radius_px=2.0).min()) == FAR
    assert soft_target(torch.tensor([0.0, 0.25, FAR]), width=0.25).tolist() == pytest.approx(
        [1.0, 0.60653, 0.0], abs=1e-4
    )
    weight = edge_weight(torch.tensor([0.0, 5.0, 9.0]), torch.tensor([5.0, -1.0]), (10, 10), margin_px=1.0)
    assert weight.tolist() == [[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]


def test_settings_out_of_range() -> None:
    with pytest.raises(ConfigError, match="--radius-angstrom is -3"):
        PickInput(radius_angstrom=-3.0)
    with pytest.raises(ConfigError, match="needs --expected-number"):
        PickTraining(risk="binomial")
    with pytest.raises(ConfigError, match="labels are missing"):
        PickTraining(expected_number=4.0)
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        PickTraining().with_values(epoch=3)
    with pytest.raises(ConfigError, match="architecture"):
        PickTraining(network={})
    with pytest.raises(ConfigError, match="unknown entry"):
        PickInput.from_dict({"radius": 3.0})
    recipe = PickTraining(epochs=10)
    assert recipe.rate(0) == 0.5 * recipe.lr
    assert recipe.rate(9) < 0.1 * recipe.lr

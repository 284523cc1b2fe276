"""Dark or bright: noise must not dilute what one micrograph shows, and one odd micrograph must not outvote the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from equivox.formats.micrographs import find_micrographs
from equivox.formats.mrc import write_mrc
from equivox.tasks.pick.contrast import contrast_signal, decide_contrast, pooled_contrast, settle_contrast
from equivox.tasks.pick.picker import PickModel, PickOptions, load_pick_model


def write_noise(folder: Path, seeds: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        image = np.random.default_rng(seed).normal(100.0, 20.0, (150, 170)).astype(np.float32)
        write_mrc(folder / f"ice_{seed}.mrc", image, pixel_size_angstrom=10.0)


def settled(model: PickModel, folder: Path) -> tuple[PickOptions, list[str]]:
    return settle_contrast(model, PickOptions(), find_micrographs([str(folder)]))


def test_evidence_of_one_micrograph() -> None:
    assert pooled_contrast([(12.0, 3.0)]) == "dark"
    assert pooled_contrast([(1.0, 9.0)]) == "bright"
    assert pooled_contrast([(0.1, 0.2)]) is None
    assert pooled_contrast([(1000.0, 900.0)]) is None, "a difference of a tenth is what halos and dirt make"
    assert pooled_contrast([]) is None
    assert contrast_signal((1e6, 0.0)) == 5.0
    assert decide_contrast([(12.0, 3.0)]) == ("dark", "")


def test_noise_adds_nothing_and_one_odd_micrograph_decides_nothing() -> None:
    draw = np.random.default_rng(1)
    noise = [(float(dark), float(bright)) for dark, bright in draw.poisson(30.0, (7, 2))]
    assert pooled_contrast([*noise, (70.0, 20.0)]) == "dark"
    assert pooled_contrast([*noise, (20.0, 70.0)]) == "bright"
    assert pooled_contrast([(60.0, 20.0)] * 5 + [(5.0, 500.0)]) == "dark", "sums would say bright"
    assert pooled_contrast([(60.0, 10.0), (10.0, 60.0)]) is None
    undecided = [
        pooled_contrast([(float(a), float(b)) for a, b in draw.poisson(30.0, (8, 2))]) is None for _ in range(200)
    ]
    assert np.mean(undecided) > 0.9


def test_what_is_not_clear_is_said_and_falls_back_to_the_training() -> None:
    for fallback in ("dark", "bright"):
        contrast, note = decide_contrast([(3.0, 2.0), (1.0, 2.0)], fallback=fallback)  # type: ignore[arg-type]
        assert contrast == fallback
        assert "4.0 to 4.0 on 2 micrographs" in note
        assert f"taken as {fallback}, as those that the model was trained on" in note
        assert "--contrast" in note


def test_mostly_noise_with_one_bright_micrograph(picker: Path, make_set: Callable[..., Path], tmp_path: Path) -> None:
    model = load_pick_model(picker)
    write_noise(tmp_path / "mics", range(6))
    options, notes = settled(model, tmp_path / "mics")
    assert options.contrast == "dark"
    assert "not clear" in notes[0]
    make_set(tmp_path / "mics", range(3, 4), sign=1.0)
    options, notes = settled(model, tmp_path / "mics")
    assert options.contrast == "bright"
    assert notes == []


def test_the_model_says_what_it_was_trained_on(picker: Path, micrographs: Path, tmp_path: Path) -> None:
    model = load_pick_model(picker)
    assert model.trained_contrast == "dark"

    def noted(value: Any) -> PickModel:
        return replace(model, folder=replace(model.folder, config={"provenance": {"contrast": value}}))

    assert noted(["bright"]).trained_contrast == "bright"
    assert noted(["bright", "dark"]).trained_contrast == "dark"
    assert noted(None).trained_contrast == "dark"
    write_noise(tmp_path, range(1))
    picks = noted(["bright"]).predict(tmp_path / "ice_0.mrc")
    assert picks.contrast == "bright"
    assert "taken as bright" in picks.warnings[-1]


def test_a_micrograph_that_says_the_opposite_is_named(
    picker: Path, make_set: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_set(tmp_path / "mics", range(4))
    odd = make_set(tmp_path / "odd", range(3, 4), sign=1.0)
    (odd / "mic_3.mrc").rename(folder / "zz.mrc")
    model = load_pick_model(picker)
    options, notes = settled(model, folder)
    assert options.contrast == "dark"
    assert "zz.mrc of the 5 looked at would say the opposite" in notes[0]

"""The results' folder of a training: who may go on in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from equivox.errors import ConfigError, OutputError
from equivox.run.training_folder import CHECKPOINTS, CURVES, MODEL, SETTINGS, TrainRun, prepare_training


def plan(**settings: object) -> dict[str, Any]:
    return {"seed": 1, "settings": {"epochs": 3, "lr": 0.1, **settings}, "data": {"training": "2 things"}}


def test_another_plan_is_refused_and_more_epochs_are_not(tmp_path: Path) -> None:
    run, again = TrainRun(out=tmp_path / "run"), TrainRun(out=tmp_path / "run", resume=True)
    prepare_training(run, plan())
    with pytest.raises(OutputError, match="exists already; pass --overwrite"):
        prepare_training(run, plan())
    prepare_training(again, plan(epochs=9))
    assert json.loads((tmp_path / "run" / SETTINGS).read_text())["settings"]["epochs"] == 9
    with pytest.raises(ConfigError, match=r"begun with another lr \(0.1 then, 0.5 now\); resume"):
        prepare_training(again, plan(lr=0.5))
    with pytest.raises(ConfigError, match=r"begun with another seed \(1 then, 2 now\)"):
        prepare_training(again, {**plan(), "seed": 2})
    with pytest.raises(ConfigError, match="begun with another data; resume"):
        prepare_training(again, {**plan(), "data": {}})
    with pytest.raises(ConfigError, match="begun with another epochs"):
        prepare_training(again, plan(), may_change=())


def test_a_setting_that_runs_did_not_have_stands_for_what_they_did(tmp_path: Path) -> None:
    prepare_training(TrainRun(out=tmp_path), plan())
    again = TrainRun(out=tmp_path, resume=True)
    prepare_training(again, plan(), absent={"symmetry": "mirror"})
    with pytest.raises(ConfigError, match=r"another symmetry \(mirror then, c2 now\)"):
        prepare_training(again, plan(symmetry="c2"), absent={"symmetry": "mirror"})
    prepare_training(again, plan(symmetry="mirror"), absent={"symmetry": "mirror"})


def test_overwriting_leaves_nothing_of_the_earlier_run(tmp_path: Path) -> None:
    for name in (MODEL, CHECKPOINTS):
        (tmp_path / name).mkdir()
    (tmp_path / CURVES).write_text("epoch\n")
    (tmp_path / "notes.txt").write_text("stay")
    prepare_training(TrainRun(out=tmp_path, overwrite=True), plan())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", SETTINGS]
    (tmp_path / SETTINGS).write_text("{}")
    with pytest.raises(OutputError, match="cannot be read"):
        prepare_training(TrainRun(out=tmp_path, resume=True), plan())

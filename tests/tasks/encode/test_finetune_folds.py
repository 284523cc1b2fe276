"""Finetuning by folds: nobody in two, the fold opened at the end, one fold alone, baselines with the same options."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equivox.errors import ConfigError, InputError, OutputError
from equivox.formats.subjects import Subject
from equivox.tasks.encode.finetune_folds import finetune_folds
from equivox.tasks.encode.finetune_numbers import target_lines
from equivox.tasks.encode.fold_choice import FoldChoice, choose_folds
from equivox.tasks.encode.targets import make_folds, read_targets
from equivox.tasks.encode.train import TrainRun
from equivox.tasks.encode.train_config import FinetuneConfig
from equivox.tasks.encode.train_data import find_subjects

SMALL: dict[str, Any] = {
    "fields": [[3, 2, 1], [4, 2, 1], [4, 2, 2]], "kernel_sizes": [3, 3, 3], "polar": 8, "axial": 4, "scalars": 10,
    "pseudoscalars": 2,
}  # fmt: skip
CONFIG = FinetuneConfig(epochs=2, batch_size=4, strength=0.0, side=16, share_validation=0.3)


@pytest.fixture(scope="module")
def brains(
    tmp_path_factory: pytest.TempPathFactory, brain_values: Callable[..., np.ndarray], save: Callable[..., Path]
) -> Path:
    """Nine brains of eight persons in two folds of the table; one without a fold, one without an age."""
    folder = tmp_path_factory.mktemp("folds")
    rows = [("id", "session", "path", "age", "sex", "fold0")]
    for number in range(9):
        save(folder / f"b{number}.nii.gz", brain_values((22, 26, 22), 8.0, number), np.diag([8.0, 8.0, 8.0, 1.0]))
        person = "p0" if number < 2 else f"p{number}"
        fold = "" if number == 8 else "ba"[number % 4 > 1]
        age = "" if number == 7 else str(30 + 7 * number)
        rows.append((person, f"s{number}", f"b{number}.nii.gz", age, "FM"[number % 2], fold))
    with (folder / "subjects.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "subjects.csv"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_column_of_the_table_gives_the_folds(brains: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, targets=("age", "sex"))
    run = TrainRun(out=tmp_path / "cv", device="cpu")
    done = finetune_folds([brains], "new:brain_encoder", config, run, FoldChoice.parse("fold0"), network=SMALL)
    rows = rows_of(tmp_path / "cv" / "predictions.csv")
    table = {(row["id"], row["age"]): row["fold0"] for row in rows_of(brains)}
    assert len(rows) == 8
    assert all(row["fold"] == table[row["id"], str(int(float(row["age"])) if row["age"] else "")] for row in rows)
    assert {"age_predicted", "age_predicted_turned", "age_constant", "male", "male_turned"} <= set(rows[0])
    assert any("1 scans have no fold0" in text for text in done.warnings)
    for label in "ab":
        plan = json.loads((tmp_path / "cv" / f"fold-{label}" / "training.json").read_text())
        assert plan["settings"]["fold"]["label"] == label
        held_out = {row["id"] for row in rows if row["fold"] == label}
        assert not held_out & {row["id"] for row in rows_of(tmp_path / "cv" / f"fold-{label}" / "predictions.csv")}
    summary = json.loads((tmp_path / "cv" / "crossvalidation.json").read_text())
    assert [(one["target"], one["setting"], one["scans"]) for one in summary["results"]] == [
        ("age", "upright", 7), ("age", "turned", 7), ("age", "constant", 7), ("sex", "upright", 8),
        ("sex", "turned", 8),
    ]  # fmt: skip
    assert sum(one["test"] for one in summary["folds"].values()) == summary["scans"] == 8
    # our encoder says the same of a turned scan up to what the grid of 16 voxels does
    ages = np.array([[float(row[name]) for name in ("age_predicted", "age_predicted_turned")] for row in rows])
    assert np.abs(ages[:, 0] - ages[:, 1]).max() < 6.0
    first = (tmp_path / "cv" / "predictions.csv").read_text()
    with pytest.raises(OutputError, match="--resume"):
        finetune_folds([brains], "new:brain_encoder", config, run, FoldChoice.parse("fold0"), network=SMALL)
    (tmp_path / "cv" / "fold-b" / "held_out.csv").unlink()
    again = finetune_folds(
        [brains], "new:brain_encoder", config, replace(run, resume=True), FoldChoice.parse("fold0"), network=SMALL
    )
    assert (tmp_path / "cv" / "predictions.csv").read_text() == first
    assert again.as_dict()["results"] == done.as_dict()["results"]


@pytest.mark.parametrize(
    ("model", "network"),
    [
        ("new:brain_cnn", {"read": "gram"}),
        ("new:brain_vit", {"width": 48, "layers": 1, "heads": 2}),
    ],
)
def test_baselines_are_finetuned_the_same_way(
    model: str, network: dict[str, Any], brains: Path, tmp_path: Path
) -> None:
    pytest.importorskip("monai")
    config = replace(CONFIG, epochs=1, orientation="uniform", strength=0.5)
    one = finetune_folds(
        [brains], model, config, TrainRun(out=tmp_path, device="cpu"), FoldChoice.parse("fold0:a"), network=network
    )
    assert one.lines == ()
    assert {row["fold"] for row in one.rows} == {"a"}
    assert not (tmp_path / "predictions.csv").exists(), "one fold alone says nothing of all"
    rows = rows_of(tmp_path / "fold-a" / "held_out.csv")
    assert np.isfinite([float(row["age_predicted_turned"]) for row in rows]).all()


def test_drawn_folds_keep_persons_together_and_are_those_of_the_probe(brains: Path) -> None:
    subjects, _ = find_subjects([brains])
    notes: list[str] = []
    chosen, labels, told = choose_folds(subjects, FoldChoice(count=3), ("age",), 4, notes)
    assert len(chosen) == len(labels) == 9
    assert "grouped by person" in told
    of: dict[str, set[str]] = {}
    for one, label in zip(chosen, labels, strict=True):
        of.setdefault(one.id, set()).add(label)
    assert all(len(found) == 1 for found in of.values())
    assert len(set(labels)) == 3
    many = [
        Subject(id=f"p{number // 2}", path=None, group=f"p{number // 2}", age=20.0 + 3 * number) for number in range(14)
    ]
    _, labels, _ = choose_folds(many, FoldChoice(count=3), ("age",), 4, [])
    probed, _ = make_folds(many, read_targets(many, "age"), count=3, repeats=1, seed=4, given=True)
    assert [int(label) for label in labels] == probed[0].tolist()


def test_leaks_and_folds_that_cannot_be_meant_are_refused(brains: Path) -> None:
    subjects, _ = find_subjects([brains])
    split = [replace(one, values={**one.values, "fold0": str(number)}) for number, one in enumerate(subjects)]
    with pytest.raises(InputError, match="p0 lies in fold"):
        choose_folds(split, FoldChoice(column="fold0"), ("age",), 0, [])
    same = [replace(one, path=subjects[0].path) for one in subjects]
    with pytest.raises(InputError, match="same image under two people"):
        choose_folds(same, FoldChoice(count=2), ("age",), 0, [])
    with pytest.raises(ConfigError, match="fold1 is no column of the table; there are fold0"):
        choose_folds(subjects, FoldChoice(column="fold1"), ("age",), 0, [])
    single = [replace(one, values={"fold0": "a"}) for one in subjects]
    with pytest.raises(InputError, match="has one fold"):
        choose_folds(single, FoldChoice(column="fold0"), ("age",), 0, [])
    for text in ("", ":2", "1", "fold0:"):
        with pytest.raises(ConfigError, match="--fold"):
            FoldChoice.parse(text)
    with pytest.raises(ConfigError, match="the fold 'c'"):
        finetune_folds(
            [brains], "new:brain_encoder", CONFIG, TrainRun(out=brains.parent / "none"), FoldChoice.parse("fold0:c")
        )


def test_several_processes_train_one_fold_at_a_time(brains: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_NTASKS_PER_NODE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="one fold at a time"):
        finetune_folds([brains], "new:brain_encoder", CONFIG, TrainRun(out=brains.parent / "none"), FoldChoice())


def test_numbers_of_answers_that_are_known() -> None:
    draw = torch.Generator().manual_seed(0)
    ages = (20 + 60 * torch.rand(40, generator=draw)).tolist()
    rows = [
        {
            "id": f"p{n}", "age": age, "age_predicted": age + (-1) ** n, "age_predicted_turned": age + 3.0,
            "age_constant": 50.0, "diagnosis": "AC"[n % 2], "diagnosis_predicted": "AC"[n % 2],
            "diagnosis_probability": 0.9, "diagnosis_predicted_turned": "A", "diagnosis_probability_turned": 0.5,
        }
        for n, age in enumerate(ages)
    ]  # fmt: skip
    lines = {(line.target, line.setting): line.as_dict() for line in target_lines(rows, ("age", "diagnosis"), seed=0)}
    assert lines["age", "upright"]["mae"]["value"] == pytest.approx(1.0)
    assert lines["age", "turned"]["mae"]["value"] == pytest.approx(3.0)
    assert lines["age", "constant"]["mae"]["value"] > 5.0
    assert lines["diagnosis", "upright"]["bacc"]["value"] == 1.0
    assert lines["diagnosis", "upright"]["auc"] == 1.0
    assert lines["diagnosis", "turned"]["bacc"]["value"] == 0.5
    unknown = [{**row, "age": ""} for row in rows]
    assert target_lines(unknown, ("age",), seed=0) == ()

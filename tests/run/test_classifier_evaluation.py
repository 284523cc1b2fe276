"""How often a classifier is right, and the files that say so."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from equivox.errors import ConfigError, OutputError
from equivox.run.classifier_evaluation import (
    ClassifierEvaluation,
    area_under_curve,
    drawn_places,
    require_split,
    seen_notes,
    write_classifier_evaluation,
)
from equivox.run.device import choose_device
from equivox.run.evaluation_files import evaluation_paths

LOGITS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 3.0]])
LABELS = torch.tensor([0, 1, 1, 1])
FOUND = ClassifierEvaluation(
    model={"name": "m", "sha256": "0", "path": "m"}, data="set", device=choose_device("cpu"), classes=("ring", "disk"),
    ids=("a", "b", "c", "d"), labels=LABELS, logits=LOGITS, auc=None, notes=(),
)  # fmt: skip


def test_numbers_follow_from_the_logits() -> None:
    assert FOUND.counts.tolist() == [[1, 0], [1, 2]]
    assert FOUND.accuracy == 0.75
    assert FOUND.balanced_accuracy == pytest.approx((1 + 2 / 3) / 2)
    assert FOUND.majority == 0.75
    expected = -torch.log_softmax(LOGITS.double(), 1)[torch.arange(4), LABELS].mean()
    assert FOUND.cross_entropy == pytest.approx(float(expected))
    numbers = FOUND.numbers("things")
    assert numbers["things"] == 4
    assert numbers["recall"] == {"ring": 1.0, "disk": pytest.approx(2 / 3)}


def test_an_area_is_that_of_two_classes_that_occur() -> None:
    assert area_under_curve(LABELS, LOGITS, ("ring", "disk")) == pytest.approx(2 / 3)  # b and d lie above a, c below
    assert area_under_curve(torch.ones(4, dtype=torch.int64), LOGITS, ("ring", "disk")) is None
    assert area_under_curve(LABELS, torch.zeros(4, 3), ("ring", "disk", "star")) is None


def test_places_are_drawn_by_the_seed_and_in_order() -> None:
    kept = drawn_places(100, 7, seed=1)
    assert kept == sorted(set(kept)) == drawn_places(100, 7, seed=1) != drawn_places(100, 7, seed=2)
    assert drawn_places(3, 7, seed=1) == [0, 1, 2]


def test_files_are_written_once(tmp_path: Path) -> None:
    paths = write_classifier_evaluation(FOUND, {"schema": "x"}, tmp_path, page="<p>", overwrite=False)
    assert paths == evaluation_paths(tmp_path, "evaluation_predictions.csv")
    assert json.loads(paths[0].read_text()) == {"schema": "x"}
    with paths[1].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["true"], row["label"]) for row in rows] == [
        ("a", "ring", "ring"), ("b", "disk", "disk"), ("c", "disk", "ring"), ("d", "disk", "disk"),
    ]  # fmt: skip
    assert float(rows[2]["p_ring"]) == pytest.approx(float(torch.sigmoid(torch.tensor(3.0))), abs=1e-6)
    assert paths[2].read_text() == "<p>"
    with pytest.raises(OutputError, match="pass --overwrite"):
        write_classifier_evaluation(FOUND, {}, tmp_path, page="", overwrite=False)


def test_a_split_that_there_is_not_and_one_that_flatters() -> None:
    with pytest.raises(ConfigError, match="--split is 'tests'; give test"):
        require_split("tests")
    assert seen_notes("test", "pictures") == []
    assert "flatter" in seen_notes("all", "pictures")[0]

"""The measures of SHREC17 equal the official program's on every list and case of the fixture."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from equivox.errors import InputError
from equivox.formats.shrec import find_models, read_rank_lists, read_truth, synsets, write_rank_lists
from equivox.metrics.retrieval import MEASURES, Measures, evaluate_retrieval, list_measures, rank_lists

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "shapes" / "shrec17"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text())
CASES: list[dict[str, Any]] = json.loads((FOLDER / "unit_cases.json").read_text())


def check(measures: Measures, expected: dict[str, Any]) -> None:
    for name in MEASURES:
        assert getattr(measures, name) == pytest.approx(expected[name], abs=1e-9), name


@pytest.fixture(scope="module")
def truth() -> dict[str, tuple[str, str, str]]:
    return {model.id: model.label for model in read_truth(FOLDER / "truth.csv")}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_unit_cases(case: dict[str, Any]) -> None:
    check(list_measures(case["gains"], case["oracle"], cutoff=case["cutoff"]), case["expected"])


def test_all_lists_of_the_fixture(truth: dict[str, tuple[str, str, str]]) -> None:
    result = evaluate_retrieval(truth, read_rank_lists(FOLDER / "rank_lists" / "test_normal"), split="test")
    assert set(result.queries) == set(EXPECTED["queries"])
    for query, expected in EXPECTED["queries"].items():
        found = result.queries[query]
        assert list(found.gains) == expected["gains"]
        assert (found.synset, found.relevant) == (expected["synset"], expected["n_relevant"])
        check(found.measures, expected)
    for synset, expected in EXPECTED["per_synset"].items():
        check(result.per_synset[synset], expected)
    check(result.micro, EXPECTED["microALL"])
    check(result.macro, EXPECTED["macroALL"])
    assert result.score == pytest.approx(EXPECTED["score"], abs=1e-9)


def test_an_empty_list_counts_zero_and_is_said(
    truth: dict[str, tuple[str, str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    lists = {"000021": ["000021"], "000022": ["999999"], "000001": ["000001"]}
    with caplog.at_level(logging.WARNING, logger="equivox"):
        result = evaluate_retrieval(truth, lists, split="test")
    assert result.empty == ("000022",)
    assert result.skipped == ("000001",)
    assert result.missing == sum(label[2] == "test" for label in truth.values()) - 2
    assert result.queries["000022"].measures == Measures(0.0, 0.0, 0.0, 0.0, 0.0)
    assert not math.isnan(result.micro.NDCG)
    assert "count as 0" in caplog.text
    with pytest.raises(InputError, match="None of the 1 rank lists"):
        evaluate_retrieval(truth, {"000001": []}, split="test")


def test_the_cutoff_comes_before_the_filter(truth: dict[str, tuple[str, str, str]]) -> None:
    lists = {"000021": ["999999", "999999", "000021"]}
    assert evaluate_retrieval(truth, lists, split="test", cutoff=2).empty == ("000021",)
    assert evaluate_retrieval(truth, lists, split="test", cutoff=3).micro.P == 1.0


def test_lists_of_a_classifier_survive_the_way_over_files(tmp_path: Path) -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [2.0, 1.0]])
    lists = rank_lists(["000001", "000002", "000003", "000010"], logits)
    assert lists["000001"] == ["000003", "000010", "000001"]  # ties: the highest id first
    assert lists["000002"] == ["000002"]
    write_rank_lists(tmp_path / "lists", lists)
    assert read_rank_lists(tmp_path / "lists") == lists
    with pytest.raises(InputError, match="distinct ids"):
        rank_lists(["1", "1"], logits[:2])


def test_ids_are_text() -> None:
    models = read_truth(FOLDER / "truth.csv")
    assert models[0].id == "000024"
    assert synsets(models) == ("02000001", "02000002", "02000003")
    assert len(models) == 39


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is empty"),
        ("id,synsetId,subSynsetId,modelId,split\n", "names no model"),
        ("id,synsetId,modelId,split\n1,02,m,test\n", "subSynsetId"),
        ("id,synsetId,subSynsetId,modelId,split\n1,02,02,m,test\n000001,02,02,n,test\n", "stood already"),
        ("id,synsetId,subSynsetId,modelId,split\n1,chair,02,m,test\n", "'chair'; digits"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(InputError, match=part):
        read_truth(tmp_path / "truth.csv")


def test_models_without_files_and_files_without_models(tmp_path: Path) -> None:
    models = read_truth(FOLDER / "truth.csv")[:3]
    folder = tmp_path / "test_perturbed"
    folder.mkdir()
    with pytest.raises(InputError, match="none of the 3 models"):
        find_models(folder, models)
    (folder / f"{models[0].id}.obj").write_text("v 0 0 0\n")
    (folder / f"{models[1].id}.obj").write_text("")
    (folder / "123456.obj").write_text("v 0 0 0\n")
    found, extra = find_models(folder, models)
    assert [entry.path is not None for entry in found] == [True, False, False]
    assert "is empty" in found[1].problem
    assert "holds no mesh of model" in found[2].problem
    assert [path.name for path in extra] == ["123456.obj"]


def test_bad_rank_lists(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_rank_lists(tmp_path / "none")
    with pytest.raises(InputError, match="holds no rank list"):
        read_rank_lists(tmp_path)
    (tmp_path / "27").write_text("000027\n")
    (tmp_path / "000027").write_text("000027\n")
    with pytest.raises(InputError, match="has another list"):
        read_rank_lists(tmp_path)
    (tmp_path / "27").unlink()
    (tmp_path / "000028").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file"):
        read_rank_lists(tmp_path)

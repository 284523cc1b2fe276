from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from equivox.cli.main import main
from equivox.errors import ConfigError, InputError
from equivox.formats.subjects import read_subject_table
from equivox.tasks.encode.probe import ProbeConfig, run_probe
from equivox.tasks.encode.results import columns_of

PEOPLE = 40


def write_study(root: Path, *, twins: bool = False, folds: bool = False) -> Path:
    """A table of people, empty scans, and a folder of codes in which s000 knows the age and s001 the sex."""
    draw = np.random.default_rng(3)
    ages = draw.uniform(20, 80, PEOPLE)
    lines = ["id,session,age,sex,diagnosis,path" + (",fold0" if folds else "")]
    codes = root / "codes"
    (codes / "items").mkdir(parents=True)
    header = columns_of(6, 1, 0)
    rows = []
    for index, age in enumerate(ages):
        person = f"p{index // 2 if twins else index:02d}"
        path = root / "scans" / f"s{index:02d}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        male = index % 2 == 0
        shown = "n/a" if index == 5 else "89+" if index == 6 else f"{age:.2f}"
        cells = [person, f"v{index}", shown, "M" if male else "F", "AD" if age > 60 else "CN", str(path)]
        lines.append(",".join([*cells, *([str(index % 5)] if folds else [])]))
        numbers = draw.normal(size=6)
        numbers[0], numbers[1] = age / 30 + 0.05 * numbers[0], (1.0 if male else -1.0) + 0.3 * numbers[1]
        rows.append([str(path), "ok", "", "0.5", *(f"{v:.9g}" for v in numbers), *(["0.1"] * 6)])
        marker = {
            "input": str(path), "input_sha256": f"{index:064d}", "histogram": draw.dirichlet(np.ones(24)).tolist(),
            "volume_ml": 1400.0 + index,
        }  # fmt: skip
        (codes / "items" / f"s{index:02d}.json").write_text(json.dumps(marker))
    (root / "people.csv").write_text("\n".join(lines) + "\n")
    with (codes / "embeddings.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return root / "people.csv"


def probe(table: Path, **options: object) -> object:
    config = ProbeConfig(**{"resamples": 100, "repeats": 1, **options})  # type: ignore[arg-type]
    return run_probe(read_subject_table(table), [table.parent / "codes"], config)


def test_a_code_that_knows_the_age_beats_the_trivial_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_study(tmp_path)
    out = tmp_path / "out"
    assert main(["encode", "probe", str(table), str(tmp_path / "codes"), "--out", str(out), "--resamples", "200"]) == 0
    text = capsys.readouterr()
    for name in ("constant", "brain volume", "intensity histogram (24 bins)", "codes"):
        assert name in text.out
    assert "p05 v5: has no age" in text.err
    document = json.loads((out / "probe.json").read_text())
    by_name = {line["name"]: line for line in document["results"]}
    assert by_name["codes"]["mae"]["value"] < 3.0 < 10.0 < by_name["constant"]["mae"]["value"]
    assert by_name["codes"]["mae_minus_best_trivial"]["high"] < 0
    assert document["scans"] == 38
    assert {one["who"] for one in document["skipped"]} == {"p05 v5", "p06 v6"}
    with (out / "probe_predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 38
    assert {rows[0][f"fold{n}"] for n in range(5)} <= set("01234")
    assert "Read-outs" in (out / "probe.html").read_text()
    assert main(["encode", "probe", str(table), str(tmp_path / "codes"), "--out", str(out)]) == 2


def test_classes_are_read_out_by_balanced_accuracy(tmp_path: Path) -> None:
    table = write_study(tmp_path)
    found = {line.name: line.numbers for line in probe(table, target="sex").lines}  # type: ignore[attr-defined]
    assert found["codes"].bacc.value > 0.9
    assert 0.3 < found["constant"].bacc.value < 0.7
    diagnosis = {line.name: line.numbers for line in probe(table, target="diagnosis").lines}  # type: ignore[attr-defined]
    assert diagnosis["codes"].bacc.value > 0.85


def test_one_seed_gives_one_result_and_every_encoder_the_same_settings(tmp_path: Path) -> None:
    table = write_study(tmp_path)
    config = ProbeConfig(resamples=100, repeats=1)
    both = run_probe(read_subject_table(table), [tmp_path / "codes", tmp_path / "codes"], config)
    assert both.lines[-1].numbers.as_dict() == both.lines[-2].numbers.as_dict()
    again = run_probe(read_subject_table(table), [tmp_path / "codes"], config)
    assert again.lines[-1].numbers.as_dict() == both.lines[-1].numbers.as_dict()


def test_scans_of_one_person_stay_in_one_fold(tmp_path: Path) -> None:
    found = probe(write_study(tmp_path, twins=True))
    for row in found.folds:  # type: ignore[attr-defined]
        owner: dict[str, int] = {}
        for subject, fold in zip(found.subjects, row.tolist(), strict=True):  # type: ignore[attr-defined]
            assert owner.setdefault(subject.id, fold) == fold


def test_given_folds_that_leak_stop_the_run(tmp_path: Path) -> None:
    table = write_study(tmp_path, twins=True, folds=True)
    with pytest.raises(InputError, match="fold0 leaks: p00 lies in fold 0 and in fold 1"):
        probe(table)
    assert "grouped by person" in probe(table, given_folds=False).folds_told  # type: ignore[attr-defined]


def test_given_folds_are_taken_as_they_are(tmp_path: Path) -> None:
    found = probe(write_study(tmp_path, folds=True))
    assert found.folds_told == "columns fold0 of the table"  # type: ignore[attr-defined]
    expected = [index % 5 for index in range(PEOPLE) if index not in (5, 6)]
    assert found.folds.tolist() == [expected]  # type: ignore[attr-defined]


def test_one_image_under_two_people_stops_the_run(tmp_path: Path) -> None:
    table = write_study(tmp_path)
    marker = tmp_path / "codes" / "items" / "s08.json"
    document = json.loads(marker.read_text())
    document["input_sha256"] = f"{20:064d}"
    marker.write_text(json.dumps(document))
    with pytest.raises(InputError, match="p08 v8 and p20 v20 are the same image"):
        probe(table)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"target": "hight"}, ConfigError, "the subjects have no 'hight'"),
        ({"target": "age", "folds": 1}, ConfigError, "needs 2 or more"),
        ({"target": "age", "folds": 60}, InputError, "38 people"),
        ({"target": "diagnosis", "folds": 40}, InputError, "one class alone"),
    ],
)
def test_what_cannot_be_probed_is_one_sentence(
    tmp_path: Path, options: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        probe(write_study(tmp_path), **options)


def test_codes_of_other_scans_do_not_fit(tmp_path: Path) -> None:
    table = write_study(tmp_path / "a")
    write_study(tmp_path / "b")
    for path in (tmp_path / "b" / "scans").iterdir():
        path.rename(path.with_name("other" + path.name))
    text = (tmp_path / "b" / "codes" / "embeddings.csv").read_text().replace("/s", "/others")
    (tmp_path / "b" / "codes" / "embeddings.csv").write_text(text)
    with pytest.raises(InputError, match="none of the 40 scans"):
        run_probe(read_subject_table(table), [tmp_path / "b" / "codes"], ProbeConfig())
    with pytest.raises(InputError, match="run equivox encode embed first"):
        run_probe(read_subject_table(table), [tmp_path / "b" / "scans"], ProbeConfig())


def test_what_the_encoder_was_trained_on_is_declared(tmp_path: Path) -> None:
    table = write_study(tmp_path)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"provenance": {"data": "40 brains of this very study"}}))
    record = {"model": {"name": "mine", "path": str(model)}}
    (tmp_path / "codes" / "run.json").write_text(json.dumps(record))
    notes = probe(table).notes  # type: ignore[attr-defined]
    assert "mine (codes) was trained on 40 brains of this very study" in " ".join(notes)


def test_codes_are_read_with_the_shares_of_tissue_and_without(tmp_path: Path) -> None:
    """Shares that know what the code does not are used; the shares alone are among the trivial lines."""
    table = read_subject_table(write_study(tmp_path))
    ages = {str(one.path): one.age for one in table.subjects}
    draw = np.random.default_rng(0)
    for marker in (tmp_path / "codes" / "items").glob("*.json"):
        found = json.loads(marker.read_text())
        age = ages[found["input"]] or 50.0
        marker.write_text(json.dumps(found | {"tissues": [age / 1000 + 1e-4 * draw.normal(), 0.5, 0.4]}))
    probe = run_probe(table, [tmp_path / "codes"], ProbeConfig(repeats=1, resamples=100))
    lines = {line.name: line for line in probe.lines}
    assert lines["tissue by depth (3)"].trivial
    assert not lines["codes with tissue by depth"].trivial
    assert lines["codes with tissue by depth"].features == lines["codes"].features + 3
    assert lines["codes with tissue by depth"].numbers.mae.value < lines["codes"].numbers.mae.value

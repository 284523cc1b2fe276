"""What a user does with shapes: train, go on, evaluate, look at the page, predict; and what is said of bad input."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from equivox.cli.main import main
from equivox.tasks.shapes.source_tetris import PIECES, tetris_volume

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SMALL = ["--side", "13", "--cell", "1.5", "--network", "shape_net", "--device", "cpu"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps of training through the command."""
    out = tmp_path_factory.mktemp("shapes") / "tetris"
    words = ["shapes", "train", "tetris", "--preset", "tetris-equivox", "--out", str(out), *SMALL]
    assert main([*words, "--epochs", "2", "--validate-every", "1", "--quiet"]) == 0
    return out / "model"


@pytest.fixture
def pieces(tmp_path: Path) -> list[str]:
    """Two pieces as arrays, one of them with another grid."""
    for number, side in ((0, 13), (3, 11)):
        np.save(tmp_path / f"piece{number}.npy", tetris_volume(number, side, 1.5, False)[0].numpy())
    return [str(tmp_path / "piece0.npy"), str(tmp_path / "piece3.npy")]


def test_training_goes_on_and_is_not_replaced(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "again"
    words = ["shapes", "train", "tetris", "--preset", "tetris-equivox", "--out", str(out), *SMALL]
    assert main([*words, "--epochs", "1", "--validate-every", "1", "--tensorboard"]) == 0
    said = capsys.readouterr().err
    assert "[1/1] train_loss" in said
    assert "parameters" in said
    assert main([*words, "--epochs", "1", "--validate-every", "1"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*words, "--epochs", "2", "--validate-every", "1", "--resume", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["results"][0]["epochs"] == 2
    with (out / "curves.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1"]
    assert any((out / "tensorboard").iterdir())
    record = json.loads((out / "run.json").read_text())
    assert record["outcome"] == "done"
    assert record["network"]["architecture"] == "shape_net"


def test_predictions_are_a_table_and_can_be_resumed(
    model: Path, pieces: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "classes"
    words = ["shapes", "predict", *pieces, str(tmp_path / "ghost.npy"), "--model", str(model), "--out", str(out)]
    assert main([*words, "--json"]) == 1
    streams = capsys.readouterr()
    assert "ghost.npy does not exist" in streams.err
    document = json.loads(streams.out)
    assert [row["status"] for row in document["results"]] == ["ok", "ok", "failed"]
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:5] == ["input", "status", "reason", "label", "probability"]
    assert list(rows[0])[5:] == [f"p_{name}" for name in PIECES]
    assert sum(float(rows[0][f"p_{name}"]) for name in PIECES) == pytest.approx(1.0, abs=1e-4)
    assert rows[2]["reason"]
    assert rows[2]["label"] == ""
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 1
    assert "piece0.npy  kept" in capsys.readouterr().err
    assert main([*words[:4], "--model", str(model), "--out", str(out), "--overwrite", "--quiet"]) == 0


def test_what_a_killed_run_was_writing_is_cleared_away(model: Path, pieces: list[str], tmp_path: Path) -> None:
    out = tmp_path / "classes"
    words = ["shapes", "predict", pieces[0], "--model", str(model), "--out", str(out), "--quiet"]
    assert main(words) == 0
    for name in (".writing-12345678-predictions.csv", "items/.writing-12345678-piece3.json"):
        (out / name).write_text("half")
    assert main([*words, "--resume"]) == 0
    assert not list(out.rglob(".writing-*"))


def test_an_evaluation_ends_in_a_page(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report"
    words = ["shapes", "evaluate", "tetris", "--model", str(model), "--out", str(out), "--rotations", "1"]
    assert main([*words, "--objects", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in document["rotations"]["orientations"]][:2] == ["as they lie", "24 turns of the cube"]
    assert main([*words, "--objects", "0"]) == 2
    assert main([*words, "--objects", "0", "--overwrite"]) == 0
    assert "balanced accuracy" in capsys.readouterr().out
    if CHROMIUM is not None:
        page, profile = (out / "evaluation.html").as_uri(), f"--user-data-dir={tmp_path / 'profile'}"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND", profile]
        done = subprocess.run(
            [CHROMIUM, *options, "--dump-dom", page], capture_output=True, text=True, timeout=240, check=True
        )
        assert "How often the classifier is right" in done.stdout


def test_bad_input_is_one_sentence_with_its_exit_code(
    model: Path,
    pieces: list[str],
    tmp_path: Path,
    fixture_path: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    mesh = str(fixture_path("shapes/mesh/cuboid_tris.off"))
    (tmp_path / "half.npz").write_bytes(b"PK\x03\x04")
    out = ["--out", str(tmp_path / "x")]
    cases: list[tuple[list[str], int, str]] = [
        (["predict", mesh, "--model", str(model), *out], 3, "is not what this model takes; give a volume"),
        (["predict", pieces[0], "--model", "fetal-head-epi", *out, "--overwrite"], 4, "for the task 'pose'"),
        (["predict", pieces[0], "--model", "tetriss", *out, "--overwrite"], 4, "there is no model named 'tetriss'"),
        (
            ["predict", str(tmp_path / "half.npz"), "--model", str(model), *out, "--overwrite"],
            3,
            "no whole .npz archive",
        ),
        (["train", "tetris", "--preset", "tetri", *out], 2, "--preset 'tetri' is unknown; did you mean 'tetris'?"),
        (["train", "tetris", "--preset", "tetris", "--network", "tetriss", *out], 2, "no classifier named 'tetriss'"),
        (["train", mesh, "--preset", "shapes-equivox", *out], 3, "is no whole .npz archive"),
        (["train", "nowhere", "--preset", "cath", *out], 3, "nowhere does not exist"),
        (["train", "tetris", "--preset", "cath-equivox", *out], 3, "use --preset tetris"),
        (["train", "tetris", "--preset", "tetris-equivox", "--side", "14", *out], 2, "14"),
        (["evaluate", "tetris", "--model", str(model), "--rotations", "0", *out], 2, "--rotations is 0"),
        (["evaluate", "nowhere", "--model", str(model), *out], 3, "nowhere does not exist"),
    ]
    for words, code, sentence in cases:
        assert main(["shapes", *words]) == code, words
        error = capsys.readouterr().err
        assert sentence in error, words
        assert "Traceback" not in error
        assert "bug of equivox" not in error


def test_a_structure_gives_a_row_per_chain(
    tmp_path: Path, fixture_path: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(fixture_path("shapes/cath/mini_10arch_ca.npz"))
    words = ["shapes", "train", data, "--preset", "cath-equivox", "--epochs", "1", "--validate-every", "1"]
    assert main([*words, "--out", str(tmp_path / "cath"), "--device", "cpu", "--batch-size", "8", "--quiet"]) == 0
    capsys.readouterr()
    lines = [
        f"ATOM  {number:5d}  CA  ALA {chain}{number:4d}    {3.8 * number:8.3f}{0.5 * number:8.3f}{0.0:8.3f}"
        + f"  1.00  0.00{'C':>12}"
        for chain in "AB"
        for number in range(1, 7)
    ]
    (tmp_path / "two.pdb").write_text("\n".join([*lines, "END"]) + "\n")
    few = str(fixture_path("shapes/pdb/chains.pdb"))
    words = ["shapes", "predict", str(tmp_path / "two.pdb"), few, "--model", str(tmp_path / "cath" / "model")]
    assert main([*words, "--out", str(tmp_path / "p"), "--quiet"]) == 1
    with (tmp_path / "p" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["input"].rpartition("#")[2] for row in rows[:2]] == ["A", "B"]
    assert "has no chain with 4 C-alpha atoms" in rows[2]["reason"]

"""What a user does with orientations: the shipped model on the sample particles, training, comparing; and mistakes."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from equivox.cli.main import main
from equivox.samples import orientation_folder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SAMPLE = str(orientation_folder() / "particles.star")
SMALL = [
    "--side",
    "25",
    "--picture-pixel-angstrom",
    "4.5",
    "--particles",
    "40",
    "--validation",
    "20",
    "--device",
    "cpu",
]


def test_the_sample_runs_at_once_and_the_answers_are_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped model on the shipped particles: signal-to-noise 0.05 to 0.5 over the box."""
    out = tmp_path / "poses"
    words = ["orient", "predict", SAMPLE, "--model", "asparagine-synthetase", "--out", str(out), "--threads", "1"]
    assert main([*words, "--hypotheses", "3", "--json"]) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["answered"] == 100
    assert document["symmetry"] == "C2"
    assert "results:" in said.err
    with (out / "orientations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "image", "hypothesis", "rot_deg", "tilt_deg", "psi_deg", "confidence"]
    assert {row["index"] for row in rows} == {str(index) for index in range(100)}
    assert main(words) == 2  # nothing is replaced unasked
    assert "--overwrite" in capsys.readouterr().err
    truth = str(orientation_folder() / "particles_truth.star")
    report = ["orient", "evaluate", truth, "--model", "asparagine-synthetase", "--out", str(tmp_path / "report")]
    assert main([*report, "--json", "--quiet"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["errors"]["median_rad"] < 0.2
    assert measured["errors"]["median_rad"] < measured["constant_guess_rad"] / 5
    assert measured["median_shift_error_angstrom"] < 3.0
    page = (tmp_path / "report" / "evaluation.html").read_text()
    assert "Is the confidence honest?" in page


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_the_page_opens_in_a_browser_without_network(tmp_path: Path) -> None:
    out = tmp_path / "poses"
    words = ["orient", "predict", SAMPLE, "--model", "asparagine-synthetase", "--out", str(out), "--quiet"]
    assert main(words) == 0
    picture = tmp_path / "page.png"
    subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--screenshot={picture}",
            "--window-size=1000,1400", (out / "orientations.html").as_uri(),
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert picture.stat().st_size > 20_000


def test_training_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lightning")
    data = str(orientation_folder() / "particles_truth.star")
    out = tmp_path / "mine"
    words = ["orient", "train", data, "--symmetry", "C2", "--epochs", "1", "--out", str(out), *SMALL]
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "[1/1] train_loss" in said
    assert "parameters" in said
    assert main([*words, "--resume", "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["pictures"]["training"] > 60
    assert main(["model", "verify", str(out / "model")]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["predict", "none.star", "--model", "asparagine-synthetase"], 3, "none.star"),
        (["predict", SAMPLE, "--model", "asparagin-synthetase"], 4, "did you mean"),
        (["predict", SAMPLE, "--model", "tetris"], 4, "task 'shapes'"),
        (["predict", SAMPLE, "--model", "asparagine-synthetase", "--hypotheses", "9"], 2, "1 to 5"),
        (["predict", SAMPLE, "--model", "asparagine-synthetase", "--symmetry", "K4"], 2, "unknown"),
        (["predict", SAMPLE, "--model", "asparagine-synthetase", "--workers", "0"], 2, "--workers"),
        (["evaluate", SAMPLE, "--model", "asparagine-synthetase"], 3, "no orientations"),
        (["train", "none.pdb"], 3, "none.pdb"),
        (["train", SAMPLE, "--epochs", "0"], 2, "epochs"),
        (["train", SAMPLE], 3, "no orientations"),
    ],
)
def test_mistakes_are_one_sentence_and_a_code(
    words: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if words[0] == "train":
        pytest.importorskip("lightning")
    assert main(["orient", *words, "--out", str(tmp_path / "out"), "--quiet"]) == code
    message = capsys.readouterr().err.strip()
    assert said in message
    assert message.startswith("equivox: ")
    assert "Traceback" not in message

"""What a user does with micrographs: pick the samples at once, look at the page, measure, train; and mistakes."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from equivox.cli.main import main
from equivox.formats.coordinates import read_coordinates
from equivox.samples import cryoem_folder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
APOFERRITIN = str(cryoem_folder() / "May08_04.36.57.mrc")
LABELS = str(cryoem_folder() / "apoferritin_labels.txt")


@pytest.fixture(scope="module")
def picked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped picker on the smaller sample, in every format."""
    out = tmp_path_factory.mktemp("picks") / "out"
    assert main(["pick", "predict", APOFERRITIN, "--radius-angstrom", "62", "--out", str(out), "--quiet"]) == 0
    return out


def test_the_shipped_picker_works_at_once(picked: Path) -> None:
    with (picked / "picks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert 100 < len(rows) < 220
    assert {row["micrograph"] for row in rows} == {APOFERRITIN}
    assert len(read_coordinates(picked / "autopick.star")) == len(rows)
    assert len(read_coordinates(picked / "picks.cs")) == len(rows)


def test_its_page_shows_the_picks(picked: Path, tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("no Chromium to look at the page with")
    shot = tmp_path / "page.png"
    subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1100,2400", f"--screenshot={shot}",
         (picked / "picks.html").as_uri()],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    from PIL import Image

    with Image.open(shot) as picture:
        colors = picture.convert("RGB").getcolors(1 << 24)
    assert colors is not None
    green = sum(count for count, (red, up, blue) in colors if up > 150 and up > red + 60 and up > blue + 40)
    assert green > 500  # circles about the picks


def test_picks_are_measured_against_labels(picked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pick", "evaluate", APOFERRITIN, "--coordinates", LABELS, "--radius-angstrom", "62"]
    given = ["--picks", str(picked / "picks.csv"), "--out", str(tmp_path / "report"), "--json", "--quiet"]
    assert main([*words, *given]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["best_f1"]["f1"] > 0.85
    assert (tmp_path / "report" / "evaluation.html").stat().st_size > 10_000
    assert main([*words, "--out", str(tmp_path / "none")]) == 2
    assert "either --model or --picks" in capsys.readouterr().err


TRAIN = ["train", APOFERRITIN, "--coordinates", LABELS, "--radius-angstrom", "62", "--out", "OUT"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["predict", "nothing.mrc", "--out", "OUT"], 3, "does not exist"),
        (["predict", APOFERRITIN, "--out", "OUT", "--radius-angstrom", "-4"], 2, "radius of the particle"),
        (["predict", APOFERRITIN, "--out", "OUT", "--model", "particle"], 4, "did you mean 'particles'"),
        (["predict", APOFERRITIN, "--out", "OUT", "--formats", "starr"], 2, "known are relion"),
        (["predict", "--in-mics", LABELS, "--out", "OUT"], 3, "."),
        (TRAIN, 3, "two or more"),
        ([*TRAIN, "--risk", "binomial"], 2, "--expected-number"),
        ([*TRAIN, "--network", "resnet"], 2, "known are"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pick", *(str(tmp_path / "out") if word == "OUT" else word for word in words)]) == code
    message = capsys.readouterr().err
    assert said in message
    assert "Traceback" not in message

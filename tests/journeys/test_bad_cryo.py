"""Mistakes with cryo-EM files, typed as a user would: one sentence, the right exit code, nothing half written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from equivox.cli.main import main
from equivox.formats.coordinates import read_coordinates
from equivox.formats.mrc import write_mrc

CRYO = Path(__file__).parents[1] / "fixtures" / "cryoem"
EXPECTED = json.loads((CRYO / "expected.json").read_text())
FOLDERS = ("coords_broken/", "star_broken/", "cs_broken/")
REFUSED = [name for name, entry in EXPECTED.items() if name.startswith(FOLDERS) and entry["behaviour"] == "error"]


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_file_is_one_sentence_and_exit_code_3(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.star"
    code = main(["pick", "convert", str(CRYO / name), "--out", str(out)])
    said = capsys.readouterr().err
    assert code == 3
    assert said.startswith("equivox: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert "bug" not in said
    assert Path(name).name in said
    assert list(tmp_path.iterdir()) == []


def test_one_broken_file_among_good_ones_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("coords/mic_000.box", "coords_broken/short.box"):
        shutil.copy(CRYO / name, tmp_path)
    code = main(["pick", "convert", str(tmp_path / "*.box"), "--out", str(tmp_path / "all.csv")])
    assert code == 1
    said = capsys.readouterr().err
    assert "left out: " in said
    assert "short.box, line 1, has 3 values" in said
    assert len(read_coordinates(tmp_path / "all.csv")) == 5


def test_names_in_other_scripts_and_with_blanks_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "Müller 粒子"
    write_mrc(folder / "画像 1.mrc", np.eye(64, dtype=np.float32), pixel_size_angstrom=2.0)
    (folder / "picks.txt").write_text("image_name\tx_coord\ty_coord\n画像 1\t10\t20\n", encoding="utf-8")
    for out in ("a.star", "b.cs", "c.txt", "d.csv"):
        arguments = [str(folder / "picks.txt"), "--out", str(folder / out), "--micrographs", str(folder)]
        assert main(["pick", "convert", *arguments]) == 0, capsys.readouterr().err
        found = read_coordinates(folder / out)
        assert found.x_px.tolist() == pytest.approx([10.0], abs=1e-4)
        assert "画像 1" in found.micrograph[0]


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["coords/topaz.txt", "--out", "{}/a.bx"], 2, "--to"),
        (["coords/topaz.txt", "--out", "{}/a", "--to", "box"], 2, "--box-px"),
        (["coords/topaz.txt", "--out", "{}/a.csv", "--flip-y"], 2, "--height-px"),
        (["coords/topaz.txt", "--out", "{}/a.csv", "--scale", "0"], 2, "positive"),
        (["coords/topaz.txt", "--out", "{}/a.csv", "--threshold", "1"], 2, "no scores"),
        (["coords/topaz.txt", "--out", "{}/a.cs"], 3, "--micrographs"),
        (["coords/topas.txt", "--out", "{}/a.csv"], 3, "does not exist"),
        (["coords/topaz.txt", "--out", "{}/a.csv", "--micrographs", "nowhere"], 3, "None of the 3 names"),
        (["coords/topaz.txt", "--out", "{}/a.csv", "--passthrough", "x.cs"], 0, "12 picks"),
        (["mrc/stack.mrcs", "--out", "{}/a.csv"], 3, "no text"),
        (["coords/topaz.txt"], 2, "--out"),
        (["--out", "{}/a.csv"], 2, "SOURCES"),
    ],
)
def test_wrong_options_say_what_to_do(
    arguments: list[str], code: int, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [text.format(tmp_path) if text.startswith("{}") else text for text in arguments]
    filled = [str(CRYO / text) if "/" in text and not text.startswith("/") else text for text in filled]
    assert main(["pick", "convert", *filled]) == code
    assert word in capsys.readouterr().err

from __future__ import annotations

import json
from pathlib import Path

import pytest

from equivox.cli.main import main
from equivox.formats.subjects import read_subjects
from equivox.samples import ixi_brains_folder, mni152_template


def test_the_samples_come_with_their_licence_and_ages() -> None:
    folder = ixi_brains_folder()
    assert "CC BY-SA 3.0" in (folder / "LICENSE").read_text()
    subjects = read_subjects(folder / "people.csv")
    assert [subject.age for subject in subjects] == [21.2, 69.29]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 500_000
    assert mni152_template() is not None


def test_the_demo_finds_the_known_rotation(
    tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert main(["encode", "demo", "--out", str(out), "--model", str(tiny_encoder), "--json", "--no-template"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["aligned"]["true_angle_deg"] == pytest.approx(118.26, abs=0.01)
    assert document["aligned"]["error_deg"] < 6.0  # untrained, 13 mm voxels
    assert document["aligned"]["error_mm"] < 3.0
    assert len(document["run"]["results"]) == 2
    assert (out / "aligned" / "alignment.png").is_file()
    assert main(["encode", "demo", "--out", str(out), "--model", str(tiny_encoder)]) == 2

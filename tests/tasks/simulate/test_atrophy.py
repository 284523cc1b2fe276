from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from equivox.cli.main import main
from equivox.errors import ConfigError, InputError
from equivox.run.batch import RunChoice
from equivox.tasks.simulate.atrophy import AtrophyConfig, controls, simulate_atrophy_to_files
from equivox.tasks.simulate.atrophy_labels import FREESURFER, read_scheme
from equivox.tasks.simulate.atrophy_one import MadeBrain


def write_brain(root: Path, name: str, seed: int) -> None:
    """A small brain with its label map in FreeSurfer's numbers."""
    x, y, z = np.meshgrid(*[(np.arange(30) - 14.5) * 5.0] * 3, indexing="ij")
    size = 1 + 0.02 * seed
    radius = np.sqrt(x**2 + y**2 + z**2) / size
    labels = np.zeros(x.shape, dtype=np.int16)
    for limit, value in ((64, 24), (58, 3), (50, 2)):
        labels[radius < limit] = value
    labels[(np.abs(x) - 12) ** 2 / 100 + y**2 / 700 + (z - 8) ** 2 / 140 < 1] = 4
    labels[(np.abs(x) - 30) ** 2 / 80 + (y + 8) ** 2 / 300 + (z + 18) ** 2 / 80 < 1] = 17
    grey = np.zeros(256, dtype=np.uint8)
    grey[[24, 3, 2, 4, 17]] = [20, 90, 140, 15, 95]
    noise = np.random.default_rng(seed).integers(0, 10, labels.shape)
    image = np.where(labels > 0, grey[labels] + noise, 0).astype(np.uint8)
    for folder, values, ending in (("t1", image, "_T1w"), ("seg", labels, "_seg")):
        (root / folder).mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(values, np.diag([5.0, 5, 5, 1])), root / folder / f"{name}{ending}.nii.gz")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for index in range(5):
        write_brain(tmp_path, f"p{index}", index)
    return tmp_path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_everything_is_called_synthetic_and_subjects_have_one_severity(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["simulate", "atrophy", str(study / "t1"), "--labels", str(study / "seg"), "--scheme", "freesurfer"]
    assert main([*arguments, "--out", str(out), "--severities", "0", "4", "--write-labels"]) == 0
    rows = rows_of(out / "atrophy.csv")
    assert [row["subject"] for row in rows] == [f"p{index}_T1w" for index in range(5)]
    assert sorted(row["severity"] for row in rows) in (["0"] * 3 + ["4"] * 2, ["0"] * 2 + ["4"] * 3)
    for row in rows:
        assert row["synthetic"] == "1"
        assert row["file"].endswith("_synthetic.nii.gz")
        assert (out / row["file"]).is_file()
        assert float(row["shift_mm"]) <= 5 * 0.5 * 3**0.5
        grown = float(row["ventricles_change_percent"])
        assert grown > 10 if row["severity"] == "4" else grown == 0
        stored = nibabel.load(out / row["file"])
        assert stored.get_data_dtype() == np.uint8
        labels = nibabel.load(out / row["file"].replace(".nii.gz", "_seg.nii.gz"))
        assert set(np.unique(labels.dataobj)) <= {0, 2, 3, 4, 17, 24}
    assert "SYNTHETIC" in (out / "README.md").read_text()
    assert json.loads((out / "run.json").read_text())["synthetic"] is True
    assert main([*arguments, "--out", str(out)]) == 2


def test_each_gives_every_severity_and_the_untouched_control(study: Path, tmp_path: Path) -> None:
    config = AtrophyConfig(labels=str(study / "seg"), scheme="freesurfer", severities=(0, 1), each=True, untouched=True)
    made = simulate_atrophy_to_files([str(study / "t1" / "p0_T1w.nii.gz")], tmp_path / "out", config)
    assert [one.row["severity"] for one in made.made] == [0, 1, "untouched"]
    assert made.controls == ()  # too few to mean anything
    original = np.asarray(nibabel.load(study / "t1" / "p0_T1w.nii.gz").dataobj)
    copy = np.asarray(nibabel.load(tmp_path / "out" / str(made.made[2].row["file"])).dataobj)
    assert np.array_equal(original, copy)
    again = simulate_atrophy_to_files(
        [str(study / "t1" / "p0_T1w.nii.gz")], tmp_path / "out", config, RunChoice(resume=True)
    )
    assert again.resumed == 3
    assert [one.row for one in again.made] == [one.row for one in made.made]


def test_a_brain_without_labels_or_with_its_skull_is_listed(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (study / "seg" / "p1_seg.nii.gz").unlink()
    skull = nibabel.load(study / "t1" / "p2_T1w.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.asarray(skull.dataobj) + 1, skull.affine), study / "t1" / "p2_T1w.nii.gz")
    labels = nibabel.load(study / "seg" / "p3_seg.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels.dataobj, np.diag([4.0, 4, 4, 1])), study / "seg" / "p3_seg.nii.gz")
    arguments = ["simulate", "atrophy", str(study / "t1"), "--labels", str(study / "seg"), "--scheme", "freesurfer"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    for words in ("holds no label map for", "has its skull on", "lies on another grid"):
        assert words in told
    assert len(rows_of(tmp_path / "out" / "atrophy.csv")) == 2


def test_schemes(tmp_path: Path) -> None:
    assert read_scheme("freesurfer") is FREESURFER
    path = tmp_path / "labels.json"
    path.write_text(
        '{"0": "background", "4": "ventricles", "43": "ventricles", "17": "hippocampus", "3": "cortical_gm", '
        '"2": "cerebral_wm"}'
    )
    assert read_scheme(str(path))["ventricles"] == (4, 43)
    path.write_text('{"ventricles": [4], "hippocampus": 17}')
    with pytest.raises(InputError, match="lacks cortical_gm, cerebral_wm"):
        read_scheme(str(path))
    path.write_text("nonsense")
    with pytest.raises(InputError, match="is no JSON"):
        read_scheme(str(path))
    with pytest.raises(InputError, match="neither ten, freesurfer nor a file"):
        read_scheme("fresurfer")


@pytest.mark.parametrize(
    ("severities", "words"), [((0, 7), r"holds \[7\]"), ((), "holds nothing"), ((2, 2), "names one twice")]
)
def test_severities_that_do_not_exist(severities: tuple[int, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        AtrophyConfig(labels="x", severities=severities)


def test_controls_see_what_is_there_and_no_more() -> None:
    draw = np.random.default_rng(0)
    made = []
    for index in range(60):
        severity = 2 * (index % 2)
        grown = 20 + 2 * draw.normal() + 6 * (severity > 0)
        row = {
            "subject": f"p{index}",
            "severity": severity,
            "icv_ml": 1500.0,
            "ventricles_ml": grown,
            "hippocampus_ml": 8.0,
        }
        features = {"histogram": tuple(draw.dirichlet(np.ones(24)).tolist()), "sharpness": (float(draw.normal()),)}
        made.append(MadeBrain(f"b{index}", row, features, {}))
    found = {one["by"]: one for one in controls(made, AtrophyConfig(labels="x"))}
    assert found["volumes"]["auc"] > 0.9
    assert 0.2 < found["histogram"]["auc"] < 0.8
    assert 0.2 < found["sharpness"]["auc"] < 0.8
    assert all(one["synthetic"] for one in found.values())

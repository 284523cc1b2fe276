from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.cli.main import main
from equivox.formats.subjects import Subject
from equivox.run.batch import RunChoice
from equivox.tasks.encode.robustness import (
    ANGLES_DEG,
    RobustnessConfig,
    TurnJob,
    cube_axes,
    measure_robustness,
    turns_of,
)

Make = Callable[..., np.ndarray]
Save = Callable[..., Path]


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory, brain_values: Make, save: Save) -> Path:
    """Twelve small brains whose brightness grows with age."""
    root = tmp_path_factory.mktemp("study")
    lines = ["id,age"]
    for index in range(12):
        values = brain_values((22, 26, 22), 8.0, seed=index)
        save(root / f"p{index:02d}.nii.gz", values, np.diag([8.0, 8.0, 8.0, 1.0]))
        lines.append(f"p{index:02d},{20 + 4 * index}")
    (root / "people.csv").write_text("\n".join(lines) + "\n")
    return root / "people.csv"


def config_of(model: Path, **options: object) -> RobustnessConfig:
    return RobustnessConfig(models=(str(model),), scans=2, random_turns=1, folds=3, **options)  # type: ignore[arg-type]


def test_the_axes_are_those_of_the_cube_and_scans_share_them(tmp_path: Path, tiny_encoder: Path) -> None:
    axes = cube_axes()
    assert axes.shape == (13, 3)
    assert float((axes @ axes.mT - torch.eye(13)).abs().fill_diagonal_(0).max()) < 0.99  # all different, no opposites
    seen = set()
    for place in range(13):
        job = TurnJob(Subject("p"), 0, place, tmp_path, config_of(tiny_encoder), "")
        seen |= {(angle, axis) for angle, axis, _ in turns_of(job) if axis >= 0}
    assert len(seen) == 13 * len(ANGLES_DEG)


def test_the_report_holds_curve_floor_and_chance(
    study: Path, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["encode", "robustness", str(study), "--out", str(out), "--model", str(tiny_encoder), "--scans", "3"]
    assert main([*arguments, "--random-turns", "2", "--folds", "3"]) == 0
    assert "at random turns" in capsys.readouterr().out
    document = json.loads((out / "robustness.json").read_text())
    rows = document["results"][0]["rows"]
    assert [row["angle_deg"] for row in rows] == [0, *ANGLES_DEG, "random"]
    assert rows[0]["E"] == 0 == rows[0]["I"]
    assert document["chance"] > 5
    assert all(0 < row["E"] < 0.5 for row in rows[1:])
    assert all(row["floor"] > 0 for row in rows[1:] if row["angle_deg"] not in (90, 120, 180))
    with (out / "robustness.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(rows)
    assert "robustness.html" in {path.name for path in out.iterdir()}
    assert main(arguments) == 2


def test_a_plain_network_is_caught(study: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    """The control: the same report of a plain CNN, whose vectors do not turn."""
    from equivox.nets.brain_encoders import build_encoder
    from equivox.weights.folder import write_model_folder

    fields = {"side": 16, "voxel_size_mm": 13.2}
    network = build_encoder("brain_cnn", **fields, generator=torch.Generator().manual_seed(0))
    plain = write_model_folder(
        tmp_path / "plain", name="plain", task="encode", behaviour="equivox",
        networks={"encoder": {"architecture": "brain_cnn", **fields}}, weights={"encoder": network.state_dict()},
        card="card", certificate={}, license_text="none",
    ).path  # fmt: skip
    config = RobustnessConfig(models=(str(tiny_encoder), str(plain)), target=None, scans=2, random_turns=3)
    report = measure_robustness(study, tmp_path / "out", config)
    ours, other = report.models
    assert ours.random.E < 0.3 < 0.6 < other.random.E
    assert ours.random.I_plain < other.random.I_plain


def test_resume_keeps_finished_scans(study: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "out", []
    first = measure_robustness(study, out, config_of(tiny_encoder))
    (out / "items" / "00003.json").unlink()
    again = measure_robustness(
        study, out, config_of(tiny_encoder), RunChoice(resume=True), progress=lambda d, t, text: told.append(text)
    )
    assert sorted(text.split("  ")[1] for text in told) == ["done"] + ["kept"] * 11
    assert again.as_dict() == first.as_dict()


def test_a_broken_scan_is_listed_and_the_others_are_done(
    study: Path, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "study"
    root.mkdir()
    for path in study.parent.iterdir():
        (root / path.name).write_bytes(path.read_bytes())
    (root / "p04.nii.gz").write_bytes(b"")
    arguments = ["encode", "robustness", str(root / "people.csv"), "--out", str(tmp_path / "o"), "--scans", "2"]
    assert main([*arguments, "--model", str(tiny_encoder), "--folds", "3", "--random-turns", "1"]) == 1
    assert "p04: failed: " in capsys.readouterr().err

"""``pose template``: one's own scans become the template of a model that is ready to be used."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import torch

import equivox
from equivox.cli.main import main
from equivox.errors import ConfigError, InputError
from equivox.geometry.rotations import geodesic_angle
from equivox.tasks.pose.adapt import adapt_template, read_known_poses
from equivox.tasks.pose.model import load_pose_model

SAMPLES = Path(equivox.__file__).parent / "samples" / "fetal_epi"
TRUTH = SAMPLES / "poses.csv"


def test_a_model_of_ones_own_scans_is_written_and_finds_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The samples are in the joined model's template too: parts fit together, accuracy is measured elsewhere."""
    out = tmp_path / "mine"
    assert main(["pose", "template", str(TRUTH), "--out", str(out), "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["subjects"]) == ("equivox.pose-template/1", 2)
    assert max(document["errors_deg"]) < 20  # either head by a template of the other one alone
    known, _ = read_known_poses(TRUTH)
    model = load_pose_model(str(out))
    assert "confidence was calibrated" in (out / "README.md").read_text()
    shipped = load_pose_model("fetal-head-epi").folder.networks()["template"].state_dict()
    own = model.folder.networks()["template"].state_dict()
    assert not torch.equal(own["contrast"], shipped["contrast"])
    torch.testing.assert_close(own["brain"], shipped["brain"])
    found = model.predict(known[0].path).require_pose()
    angle = math.degrees(float(geodesic_angle(found.rotation.double(), known[0].world_from_head.rotation.double())))
    assert angle < 12
    assert float((found.translation_mm - known[0].world_from_head.translation_mm).norm()) < 6


def test_rows_that_cannot_be_used_are_left_out_and_said(tmp_path: Path) -> None:
    with TRUTH.open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = tmp_path / "poses.csv"

    def write(**changes: str) -> None:
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows([{**rows[0], **changes}, rows[1]])

    write(mask_volume_ml="")
    known, left_out = read_known_poses(table, SAMPLES)
    assert [one.name for one in known] == [rows[1]["id"]]
    assert left_out == [f"{rows[0]['id']}: no volume of the brain (column mask_volume_ml)"]
    write(file="elsewhere.nii.gz")
    with pytest.raises(InputError, match=r"elsewhere.nii.gz .* name the folder of the scans with --scans"):
        read_known_poses(table, SAMPLES)


def test_our_own_predictions_count_where_they_are_ok(tmp_path: Path) -> None:
    columns = (
        "input,frame,status,reason,qx,qy,qz,qw,tx_mm,ty_mm,tz_mm,euler_x_deg,euler_y_deg,euler_z_deg,confidence,"
        "mask_volume_ml,seconds"
    )
    scan = next(SAMPLES.glob("*.nii.gz"))
    table = tmp_path / "poses.csv"
    table.write_text(
        f"{columns}\n{scan},0,ok,,0,0,0,1,1,2,3,0,0,0,0.9,280,1\n"
        f"sub-02_epi.nii.gz,0,low_confidence,Doubt.,0,0,0,1,1,2,3,0,0,0,0.3,280,1\n"
        f"sub-03_epi.nii.gz,0,no_object,None.,,,,,,,,,,,0,0,1\n"
    )
    known, left_out = read_known_poses(table)
    assert [(one.path, one.brain_volume_ml) for one in known] == [(scan, 280.0)]
    assert left_out == ["sub-02_epi: low_confidence", "sub-03_epi: no_object"]
    table.write_text(f"{columns}\n{scan},0,no_object,None.,,,,,,,,,,,0,0,1\n")
    with pytest.raises(InputError, match="holds no pose that can be used"):
        read_known_poses(table)


def test_a_model_without_a_finder_cannot_take_a_template(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not find heads by a template"):
        adapt_template(TRUTH, tmp_path / "mine", join="tetris")

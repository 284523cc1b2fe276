"""`equivox shapes voxelize`: every kind of file becomes a field at its place; what cannot is listed, the rest done."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from equivox.cli.main import main
from equivox.errors import ConfigError, InputError, OutputError
from equivox.run.batch import RunChoice
from equivox.tasks.shapes.voxelize import voxelize_shapes
from equivox.tasks.shapes.voxelize_one import VoxelizeConfig, read_field

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "shapes"
MESH, PDB = FOLDER / "mesh", FOLDER / "pdb"


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "voxels.csv").open(newline="") as file:
        return {Path(row["input"]).name: row for row in csv.DictReader(file)}


def test_every_kind_of_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "cloud.npy", np.random.default_rng(0).normal(size=(50, 3)))
    inputs = [
        str(MESH / "cuboid_tris.off"),
        str(MESH / "open_box.off"),
        str(PDB / "plain.pdb"),
        str(tmp_path / "cloud.npy"),
    ]
    assert main(["shapes", "voxelize", *inputs, "--out", str(tmp_path / "out"), "--side", "16", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "equivox.shapes.voxelize/1"
    assert [result["mode"] for result in document["results"]] == ["occupancy", "occupancy", "points", "points"]
    rows = table(tmp_path / "out")
    assert {row["status"] for row in rows.values()} == {"ok"}
    box = read_field(tmp_path / "out" / "cuboid_tris.npz")
    facts = document["results"][0]
    volume = float(box.sum()) * (facts["spacing"] / facts["scale"]) ** 3
    assert volume == pytest.approx(6.0, rel=0.03)  # the fitted grid knows the file's own unit
    trace = read_field(tmp_path / "out" / "plain.npz")
    assert float(trace.sum()) == pytest.approx(5.0, abs=1e-4)  # one per C-alpha
    assert json.loads((tmp_path / "out" / "run.json").read_text())["outcome"] == "done"


def test_a_nifti_volume_lies_where_the_mesh_lies(tmp_path: Path) -> None:
    from equivox.formats.nifti import read_volume

    config = VoxelizeConfig(side=24, format="nii")
    voxelize_shapes([MESH / "degenerate.off"], tmp_path, config)
    volume = read_volume(tmp_path / "degenerate.nii.gz")
    inside = torch.nonzero(volume.data[0] > 0.5).double()
    world = volume.world_from_voxel(inside)
    step = torch.tensor(volume.voxel_size_mm, dtype=torch.float64)
    assert_close(world.amin(dim=0), torch.zeros(3).double(), atol=float(step.max()), rtol=0)
    assert_close(world.amax(dim=0), torch.tensor([1.0, 2.0, 3.0]).double(), atol=float(step.max()), rtol=0)


def test_all_atoms_in_four_channels(tmp_path: Path) -> None:
    config = VoxelizeConfig(side=40, spacing=1.0, atoms="elements")
    voxelize_shapes([PDB / "plain.pdb"], tmp_path, config)
    sums = read_field(tmp_path / "plain.npz").sum(dim=(1, 2, 3))
    assert sums[1:].tolist() == pytest.approx([5.0, 5.0, 0.0], abs=1e-3)


def test_bad_files_are_listed_and_the_others_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    (tmp_path / "thin.off").write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")
    inputs = [MESH / "bad_nan.off", MESH / "cuboid_quads.off", PDB / "no_protein.pdb", tmp_path / "none.stl",
              tmp_path / "thin.off", MESH / "empty.obj"]  # fmt: skip
    assert main(["shapes", "voxelize", *map(str, inputs), "--out", str(out), "--side", "12"]) == 1
    rows = table(out)
    assert [row["status"] for row in rows.values()] == ["failed", "ok", "failed", "failed", "failed", "failed"]
    for name, part in {
        "bad_nan.off": "finite", "no_protein.pdb": "no amino acid", "none.stl": "does not exist",
        "thin.off": "thinner than a voxel", "empty.obj": "no vertices",
    }.items():  # fmt: skip
        assert part in rows[name]["reason"]
    assert sorted(path.name for path in out.iterdir()) == [
        "cuboid_quads.json", "cuboid_quads.npz", "run.json", "voxels.csv",
    ]  # fmt: skip
    assert "without a field: 5 of 6" in capsys.readouterr().err
    record = json.loads((out / "run.json").read_text())
    assert (record["outcome"], len(record["failures"])) == ("some_failed", 5)


def test_nothing_usable(tmp_path: Path) -> None:
    assert main(["shapes", "voxelize", str(MESH / "empty.off"), "--out", str(tmp_path / "out"), "--quiet"]) == 3


def test_a_grid_too_small_is_said(tmp_path: Path) -> None:
    found = voxelize_shapes([MESH / "cuboid_tris.off"], tmp_path / "a", VoxelizeConfig(side=4, spacing=0.5))
    assert found.outcomes[0].status == "cut"
    assert "too small; 100% of its points are cut off; leave --spacing out" in found.outcomes[0].result.warnings[0]  # type: ignore[union-attr]
    assert found.exit_code == 0
    whole = voxelize_shapes([PDB / "plain.pdb"], tmp_path / "b", VoxelizeConfig(side=2, spacing=0.4))
    assert whole.outcomes[0].status == "cut"
    away = voxelize_shapes(
        [MESH / "cuboid_tris.off"], tmp_path / "c", VoxelizeConfig(side=2, spacing=0.1, mode="surface")
    )
    assert "cut off whole" in away.outcomes[0].reason
    assert away.exit_code == 3


def test_a_mode_that_does_not_go_with_the_kind(tmp_path: Path) -> None:
    found = voxelize_shapes([PDB / "plain.pdb"], tmp_path, VoxelizeConfig(mode="surface"))
    assert "no surface, so --mode surface has nothing to fill" in found.outcomes[0].reason


@pytest.mark.parametrize(
    "changed", [{"side": 1}, {"side": 4000}, {"spacing": 0.0}, {"supersample": 0}, {"sigma_voxels": 0.0}]
)
def test_settings_out_of_range(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        voxelize_shapes([MESH / "cuboid_tris.off"], tmp_path, VoxelizeConfig(**changed))
    assert list(tmp_path.iterdir()) == []


def test_results_are_kept_replaced_or_resumed(tmp_path: Path) -> None:
    inputs, config = [MESH / "cuboid_tris.off", MESH / "cuboid_big.ply"], VoxelizeConfig(side=8)
    voxelize_shapes(inputs, tmp_path, config)
    with pytest.raises(OutputError, match="exists already"):
        voxelize_shapes(inputs, tmp_path, config)
    (tmp_path / "cuboid_big.npz").write_bytes(b"damaged")
    again = voxelize_shapes(inputs, tmp_path, config, RunChoice(resume=True))
    assert [outcome.resumed for outcome in again.outcomes] == [True, False]
    other = voxelize_shapes(inputs, tmp_path, VoxelizeConfig(side=10), RunChoice(resume=True))
    assert [outcome.resumed for outcome in other.outcomes] == [False, False]
    assert read_field(tmp_path / "cuboid_big.npz").shape == (1, 10, 10, 10)
    voxelize_shapes(inputs, tmp_path, config, RunChoice(overwrite=True))
    assert read_field(tmp_path / "cuboid_big.npz").shape == (1, 8, 8, 8)


def test_a_field_of_another_kind(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(InputError, match="lacks field, spacing"):
        read_field(tmp_path / "other.npz")
    with pytest.raises(InputError, match="No input was given"):
        voxelize_shapes([], tmp_path / "out", VoxelizeConfig())

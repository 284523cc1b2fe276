from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from equivox.cli.main import main
from equivox.errors import ConfigError, InputError, ModelFolderError, OutputError
from equivox.geometry.rotations import rotation_about
from equivox.run.batch import RunChoice
from equivox.tasks.encode.config import EmbedConfig
from equivox.tasks.encode.embed import embed_scans
from equivox.tasks.encode.model import load_encode_model
from equivox.tasks.encode.results import columns_of, read_embeddings
from equivox.tasks.load import load_model

Make = Callable[..., np.ndarray]
Save = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, brain_values: Make, save: Save) -> Path:
    for index in range(3):
        save(tmp_path / "scans" / f"sub-{index}_T1w.nii.gz", brain_values(seed=index))
    return tmp_path / "scans"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def vectors(row: dict[str, str], letter: str, axes: str) -> np.ndarray:
    names = [name for name in row if name.startswith(letter) and name[1:2].isdigit() and name[-1] in axes]
    return np.array([float(row[name]) for name in names]).reshape(-1, 3)


def test_the_columns_are_those_that_were_promised(folder: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    finished = embed_scans([folder], tmp_path / "out", EmbedConfig(model=str(tiny_encoder)))
    assert finished.exit_code == 0
    with (tmp_path / "out" / "embeddings.csv").open() as file:
        header = file.readline().strip().split(",")
    code = load_encode_model(tiny_encoder).predict(folder / "sub-0_T1w.nii.gz")
    count = len(code.scalars)
    assert header[:5] == ["input", "status", "reason", "confidence", "s000"]
    assert header[4 + count : 10 + count] == ["v00_x", "v00_y", "v00_z", "v01_x", "v01_y", "v01_z"]
    start = 4 + count + 3 * len(code.polar)
    assert header[start : start + 3] == ["v00_i", "v00_j", "v00_k"]
    assert header[start + 3 * len(code.polar)] == "a00_x"
    assert header == columns_of(count, len(code.polar), len(code.axial))
    row = rows_of(tmp_path / "out" / "embeddings.csv")[0]
    assert row["status"] == "ok"
    assert np.allclose(vectors(row, "v", "xyz"), code.polar.numpy(), rtol=1e-6, atol=1e-7)
    assert 0.1 < float(row["confidence"]) <= 1.0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["outcome"] == "done"
    assert [entry["path"] for entry in record["inputs"]] == [str(p) for p in sorted(folder.iterdir())]
    assert record["model"]["name"] == "tiny-encoder"


def test_storage_order_changes_voxel_axes_and_nothing_else(
    tiny_encoder: Path, tmp_path: Path, brain_file: Path
) -> None:
    """A mirrored reading would give other invariants; world vectors must not know how the file is stored."""
    image = nibabel.load(brain_file)
    paths = [brain_file]
    for codes in ("LAS", "PSR"):
        target = nibabel.orientations.axcodes2ornt(tuple(codes))
        path = tmp_path / f"{codes}.nii.gz"
        nibabel.save(
            image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), target)), path
        )
        paths.append(path)
    model = load_encode_model(tiny_encoder)
    first, las, psr = (model.predict(path) for path in paths)
    for other in (las, psr):
        assert torch.allclose(other.polar, first.polar, atol=1e-4)
        assert torch.allclose(other.axial, first.axial, atol=1e-4)
        assert torch.allclose(other.scalars, first.scalars, atol=1e-4)
    flip = torch.tensor([-1.0, 1.0, 1.0])
    assert torch.allclose(las.polar_voxel, first.polar * flip, atol=1e-4)
    assert torch.allclose(las.axial_voxel, -first.axial * flip, atol=1e-4)
    assert torch.allclose(psr.polar_voxel, first.polar[:, [1, 2, 0]] * torch.tensor([-1.0, 1.0, 1.0]), atol=1e-4)
    assert torch.allclose(first.polar_voxel, first.polar)


def test_vectors_turn_with_the_header(tiny_encoder: Path, tmp_path: Path, brain_file: Path, save: Save) -> None:
    image = nibabel.load(brain_file)
    turn = np.eye(4)
    turn[:3, :3] = rotation_about("z", 90.0).numpy() @ rotation_about("x", 90.0).numpy()
    path = save(tmp_path / "turned.nii.gz", np.asarray(image.dataobj), turn @ image.affine)
    model = load_encode_model(tiny_encoder)
    first, second = model.predict(brain_file), model.predict(path)
    expected = first.polar @ torch.tensor(turn[:3, :3].T, dtype=torch.float32)
    assert torch.allclose(second.polar, expected, atol=1e-4)
    assert torch.allclose(second.polar_voxel, first.polar_voxel, atol=1e-4)  # the same voxels
    assert torch.allclose(second.scalars, first.scalars, atol=1e-4)


def test_npz_holds_the_same_numbers(folder: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    (folder / "broken.nii.gz").write_bytes(b"")
    for kind in ("csv", "npz"):
        run = embed_scans([folder], tmp_path / kind, EmbedConfig(model=str(tiny_encoder), format=kind))
        assert run.exit_code == 1
    first, second = read_embeddings(tmp_path / "csv"), read_embeddings(tmp_path / "npz")
    assert first[:2] == second[:2]
    assert first[1] == ["failed", "ok", "ok", "ok"]
    assert np.allclose(first[2], second[2], rtol=1e-6, equal_nan=True)
    with np.load(tmp_path / "npz" / "embeddings.npz", allow_pickle=False) as stored:
        assert stored["polar_world"].shape == stored["polar_voxel"].shape
        assert "is empty (0 bytes)" in stored["reason"][0]
        assert np.isnan(stored["polar_world"][0]).all()
        assert stored["pseudoscalars"].shape[1] > 0


def test_a_failed_scan_keeps_its_line_and_the_others(
    folder: Path, tiny_encoder: Path, tmp_path: Path, save: Save
) -> None:
    noise = np.random.default_rng(0).random((12, 12, 12), np.float32)
    save(folder / "head.nii.gz", noise)
    inputs = [str(folder / "sub-0_T1w.nii.gz"), str(folder / "head.nii.gz"), str(folder / "sub-9_T1w.nii.gz")]
    assert main(["encode", "embed", *inputs, "--out", str(tmp_path / "out"), "--model", str(tiny_encoder)]) == 1
    rows = rows_of(tmp_path / "out" / "embeddings.csv")
    assert [row["status"] for row in rows] == ["ok", "failed", "failed"]
    assert "skull on" in rows[1]["reason"]
    assert "SynthStrip" in rows[1]["reason"]
    assert "did you mean" in rows[2]["reason"]
    assert rows[1]["s000"] == rows[1]["confidence"] == ""
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["outcome"] == "some_failed"
    assert len(record["failures"]) == 2


def test_nothing_usable_is_exit_code_3(tiny_encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_text("text")
    assert (
        main(["encode", "embed", str(tmp_path / "a.nii"), "--out", str(tmp_path / "o"), "--model", str(tiny_encoder)])
        == 3
    )
    header = (tmp_path / "o" / "embeddings.csv").read_text().splitlines()[0]
    assert header.startswith("input,status,reason,confidence")


def test_verify_prints_e_and_i_of_every_input(
    folder: Path, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = [
        "encode",
        "embed",
        str(folder / "sub-0_T1w.nii.gz"),
        str(folder / "sub-1_T1w.nii.gz"),
        "--out",
        str(out),
    ]
    assert main([*arguments, "--model", str(tiny_encoder), "--verify", "--verify-turns", "2"]) == 0
    text = capsys.readouterr().out
    assert text.count("over 2 random turns") == 2
    assert "sub-0_T1w.nii.gz: E 0." in text
    for row in rows_of(out / "verify.csv"):
        assert float(row["E_cube"]) < 1e-4  # exact, but for rounding
        assert float(row["I_cube"]) < 1e-4
        assert 1e-3 < float(row["E"]) < 0.4  # 13 mm voxels
        assert float(row["I"]) > 1e-4
        assert float(row["floor"]) > 0


def test_resume_repeats_only_what_is_missing_or_changed(
    folder: Path, tiny_encoder: Path, tmp_path: Path, brain_values: Make, save: Save
) -> None:
    out, config = tmp_path / "out", EmbedConfig(model=str(tiny_encoder))
    embed_scans([folder], out, config)
    before = (out / "embeddings.csv").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        embed_scans([folder], out, config)
    (out / "items" / "sub-1_T1w.json").unlink()
    again = embed_scans([folder], out, config, RunChoice(resume=True))
    assert [outcome.resumed for outcome in again.outcomes] == [True, False, True]
    assert (out / "embeddings.csv").read_bytes() == before
    save(folder / "sub-2_T1w.nii.gz", brain_values(seed=7))
    third = embed_scans([folder], out, config, RunChoice(resume=True))
    assert [outcome.resumed for outcome in third.outcomes] == [True, True, False]
    other = embed_scans(
        [folder], out, EmbedConfig(model=str(tiny_encoder), brain_extracted=True), RunChoice(resume=True)
    )
    assert not any(outcome.resumed for outcome in other.outcomes)


def test_what_a_killed_run_was_writing_is_cleared_away(folder: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "out", EmbedConfig(model=str(tiny_encoder), brain_extracted=True)
    embed_scans([folder / "sub-0_T1w.nii.gz"], out, config)
    for name in (".writing-12345678-embeddings.csv", "items/.writing-12345678-sub-1_T1w.json"):
        (out / name).write_text("half")
    assert embed_scans([folder / "sub-0_T1w.nii.gz"], out, config, RunChoice(resume=True)).outcomes[0].resumed
    assert not list(out.rglob(".writing-*"))


def test_two_workers_give_the_same_file(folder: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    config = EmbedConfig(model=str(tiny_encoder))
    embed_scans([folder], tmp_path / "one", config)
    embed_scans([folder], tmp_path / "two", config, RunChoice(workers=2))
    assert (tmp_path / "one" / "embeddings.csv").read_bytes() == (tmp_path / "two" / "embeddings.csv").read_bytes()


def test_a_bids_root_brings_its_masks(tmp_path: Path, tiny_encoder: Path, brain_values: Make, save: Save) -> None:
    root, values = tmp_path / "bids", brain_values()
    head = values + np.random.default_rng(0).random(values.shape, np.float32)
    save(root / "sub-01/anat/sub-01_T1w.nii.gz", head)
    save(root / "derivatives/strip/sub-01/anat/sub-01_desc-brain_mask.nii.gz", (values > 0).astype(np.float32))
    save(root / "sub-02/anat/sub-02_T1w.nii.gz", head)
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t60\nsub-02\t61\nsub-03\t62\n")
    finished = embed_scans([root], tmp_path / "out", EmbedConfig(model=str(tiny_encoder)))
    assert [outcome.row.status for outcome in finished.outcomes] == ["ok", "failed"]
    assert finished.skipped[0][0] == "sub-03"
    assert finished.exit_code == 1


def test_masks_by_name_and_a_single_mask(
    folder: Path, tmp_path: Path, tiny_encoder: Path, brain_values: Make, save: Save
) -> None:
    for index in range(2):
        save(tmp_path / "masks" / f"sub-{index}_T1w_mask.nii.gz", (brain_values(seed=index) > 0).astype(np.float32))
    config = EmbedConfig(model=str(tiny_encoder), mask=str(tmp_path / "masks"))
    finished = embed_scans([folder], tmp_path / "out", config)
    assert [outcome.row.status for outcome in finished.outcomes] == ["ok", "ok", "failed"]
    assert "holds no mask for" in finished.outcomes[2].reason
    single = EmbedConfig(model=str(tiny_encoder), mask=str(tmp_path / "masks" / "sub-0_T1w_mask.nii.gz"))
    with pytest.raises(ConfigError, match="is one file and there are 3 inputs"):
        embed_scans([folder], tmp_path / "other", single)


def test_a_model_of_another_kind_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "embed", str(folder), "--out", str(tmp_path / "o"), "--model", "tetris"]) == 4
    assert "needs one for the task 'encode'" in capsys.readouterr().err
    with pytest.raises(ModelFolderError, match="no model named"):
        embed_scans([folder], tmp_path / "o", EmbedConfig(model="brain-encodr"))


def test_no_input_at_all(tiny_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No input was given"):
        embed_scans([], tmp_path / "o", EmbedConfig(model=str(tiny_encoder)))


def test_load_model_gives_the_same_code(tiny_encoder: Path, brain_file: Path) -> None:
    code = load_model(tiny_encoder).predict(brain_file)
    assert torch.equal(code.scalars, load_encode_model(tiny_encoder).predict(brain_file).scalars)

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from equivox.errors import ConfigError, InputError, OutputError
from equivox.formats.cryosparc import read_cs, write_cs
from equivox.formats.mrc import read_mrc, write_mrc
from equivox.formats.particles import read_particles
from equivox.formats.star import read_star, write_star
from equivox.geometry.euler_relion import matrix_from_relion
from equivox.tasks.orient.model import load_orient_model
from equivox.tasks.orient.page import render_prediction
from equivox.tasks.orient.predict import PredictConfig, PredictRun, RunChoice, predict_orientations

COLUMNS = ["index", "image", "hypothesis", "rot_deg", "tilt_deg", "psi_deg", "confidence"]


def predict(
    made: Any, model: Path, out: Path, run: RunChoice | None = None, *, page: bool = False, **options: Any
) -> PredictRun:
    path = made if isinstance(made, Path) else made.table
    config = PredictConfig(particles=str(path), model=str(model), **options)
    return predict_orientations(config, out, run, page=render_prediction if page else None)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "orientations.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_particle_gets_a_row_per_hypothesis_and_the_table_its_angles(
    make_stack: Any, little_model: Path, tmp_path: Path
) -> None:
    made = make_stack(tmp_path / "in", shift=3.0)
    done = predict(made, little_model, tmp_path / "out", hypotheses=2, page=True)
    assert done.exit_code == 0
    rows = rows_of(tmp_path / "out")
    assert list(rows[0]) == COLUMNS
    assert {row["index"] for row in rows} == {str(index) for index in range(12)}
    assert rows[0]["image"] == "000001@particles.mrcs"
    assert {row["hypothesis"] for row in rows} == {"1", "2"}
    assert all(0.0 <= float(row["confidence"]) <= 1.0 for row in rows)
    first = [row for row in rows if row["hypothesis"] == "1"]
    angles = torch.tensor([[float(row[name]) for name in COLUMNS[3:6]] for row in first], dtype=torch.float64)
    table = read_particles(tmp_path / "out" / "particles.star")
    assert_close(table.require_rotations(), matrix_from_relion(*angles.unbind(1)), atol=1e-4, rtol=0)
    assert_close(table.require_rotations().float(), done.rotations[:, 0], atol=1e-4, rtol=0)
    before, after = read_star(made.table), read_star(tmp_path / "out" / "particles.star")
    assert after.block("optics") == before.block("optics") or after.block("optics").rows == before.block("optics").rows
    block = after.block("particles")
    assert block.texts("ourUnknownColumn") == [f"kept text {index}" for index in range(12)]
    assert '"kept text 3"' in block.rows[3]
    sure = block.numbers("rlnMaxValueProbDistribution")
    assert sure == pytest.approx(done.confidence[:, 0].numpy(), abs=1e-4)
    assert np.isfinite(block.numbers("rlnParticleFigureOfMerit")).all()
    origins = np.stack([block.numbers("rlnOriginXAngst"), block.numbers("rlnOriginYAngst")], axis=1)
    assert origins == pytest.approx(-done.shifts_angstrom.numpy(), abs=1e-4)
    page = (tmp_path / "out" / "orientations.html").read_text()
    assert "Orientations of particles" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["outcome"] == "done"


def test_a_run_goes_on_where_it_was_and_gives_the_same(
    make_stack: Any, little_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from equivox.tasks.orient import predict as module

    monkeypatch.setattr(module, "PORTION", 4)
    made = make_stack(tmp_path / "in")
    whole = predict(made, little_model, tmp_path / "whole")
    predict(made, little_model, tmp_path / "part")
    kept = sorted((tmp_path / "part" / "items").iterdir())
    assert len(kept) == 3
    kept[1].write_bytes(b"torn")
    kept[2].unlink()
    before = kept[0].stat().st_mtime_ns
    with pytest.raises(OutputError, match="--resume"):
        predict(made, little_model, tmp_path / "part")
    again = predict(made, little_model, tmp_path / "part", RunChoice(resume=True))
    assert kept[0].stat().st_mtime_ns == before
    assert_close(again.rotations, whole.rotations)
    other = predict(made, little_model, tmp_path / "part", RunChoice(resume=True), symmetry="C2")
    assert kept[0].stat().st_mtime_ns != before  # another symmetry is another result
    assert other.symmetry == "C2"


def test_what_a_killed_run_was_writing_is_cleared_away(make_stack: Any, little_model: Path, tmp_path: Path) -> None:
    made, out = make_stack(tmp_path / "in"), tmp_path / "out"
    predict(made, little_model, out)
    for name in (".writing-12345678-orientations.csv", "items/.writing-12345678-portion-00000000.npz"):
        (out / name).write_bytes(b"half")
    assert predict(made, little_model, out, RunChoice(resume=True)).exit_code == 0
    assert not list(out.rglob(".writing-*"))


def test_processes_give_what_one_process_gives(
    make_stack: Any, little_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from equivox.tasks.orient import predict as module

    monkeypatch.setattr(module, "PORTION", 6)
    made = make_stack(tmp_path / "in")
    one = predict(made, little_model, tmp_path / "one", RunChoice(threads=1))
    two = predict(made, little_model, tmp_path / "two", RunChoice(workers=2))
    assert (tmp_path / "one" / "orientations.csv").read_bytes() == (tmp_path / "two" / "orientations.csv").read_bytes()
    assert_close(one.confidence, two.confidence)


def test_broken_images_lose_nothing_but_themselves(make_stack: Any, little_model: Path, tmp_path: Path) -> None:
    made = make_stack(tmp_path / "in")
    images = np.array(read_mrc(made.stack).data)
    images[2, 5, 5] = np.nan
    images[7] = 1.0
    write_mrc(made.stack, images, pixel_size_angstrom=2.0)
    done = predict(made, little_model, tmp_path / "out")
    assert done.exit_code == 1
    assert [name for name, _, _ in done.failures] == ["000003@particles.mrcs", "000008@particles.mrcs"]
    assert {int(row["index"]) for row in rows_of(tmp_path / "out")} == set(range(12)) - {2, 7}
    table = read_particles(tmp_path / "out" / "particles.star")
    assert table.count == 12  # nothing lost
    assert_close(table.require_rotations()[2], made.rotations[2], atol=1e-5, rtol=0)  # the pose that it had
    assert (
        read_star(tmp_path / "out" / "particles.star").block("particles").numbers("rlnMaxValueProbDistribution")[7] == 0
    )


def test_dark_particles_are_found_out_and_turned(make_stack: Any, little_model: Path, tmp_path: Path) -> None:
    light, dark = make_stack(tmp_path / "a", count=20), make_stack(tmp_path / "b", count=20, dark=True)
    first, second = (predict(made, little_model, tmp_path / made.table.parent.name / "out") for made in (light, dark))
    assert any("dark on light" in note for note in second.notes)
    assert not any("dark on light" in note for note in first.notes)
    assert_close(first.rotations, second.rotations, atol=1e-4, rtol=0)
    wrong = predict(dark, little_model, tmp_path / "wrong", contrast="light")
    assert any("look dark" in note for note in wrong.notes)


def test_boxes_and_pixels_of_other_sizes_are_brought_to_the_models(
    make_stack: Any, little_model: Path, tmp_path: Path
) -> None:
    small = make_stack(tmp_path / "a", box=40, pixel=2.0, noise=0.0)
    large = make_stack(tmp_path / "b", box=70, pixel=1.5, noise=0.0)
    one, two = (predict(made, little_model, tmp_path / made.table.parent.name / "out") for made in (small, large))
    assert_close(one.rotations, two.rotations, atol=0.05, rtol=0)


def test_a_stack_alone_gets_a_table(make_stack: Any, little_model: Path, tmp_path: Path) -> None:
    made = make_stack(tmp_path / "in")
    done = predict(made.stack, little_model, tmp_path / "out")
    table = read_particles(tmp_path / "out" / "particles.star")
    assert table.count == 12
    assert table.require_pixel_size() == 2.0
    assert_close(table.require_rotations().float(), done.rotations[:, 0], atol=1e-4, rtol=0)


def test_cryosparc_tables_keep_their_bytes(make_stack: Any, little_model: Path, tmp_path: Path) -> None:
    made = make_stack(tmp_path / "in")
    described = [
        ("uid", "<u8"), ("blob/path", "S64"), ("blob/idx", "<u4"), ("blob/shape", "<u4", (2,)), ("blob/psize_A", "<f4"),
        ("odd/field", "<f8", (3,)),
    ]  # fmt: skip
    table = np.zeros(12, dtype=described)
    table["uid"], table["blob/path"], table["blob/idx"] = np.arange(12) + 5, b"particles.mrcs", np.arange(12)
    table["blob/shape"], table["blob/psize_A"], table["odd/field"] = 40, 2.0, np.arange(36).reshape(12, 3) / 7
    path = tmp_path / "in" / "particles.cs"
    write_cs(path, table)
    done = predict(path, little_model, tmp_path / "out")
    found = read_cs(tmp_path / "out" / "particles.cs")
    for name in table.dtype.names:
        assert found[name].tobytes() == table[name].tobytes(), name
    particles = read_particles(tmp_path / "out" / "particles.cs")
    assert_close(particles.require_rotations().float(), done.rotations[:, 0], atol=1e-5, rtol=0)
    assert found["equivox/confidence"] == pytest.approx(done.confidence[:, 0].numpy())
    star = predict(made, little_model, tmp_path / "star")
    assert_close(star.rotations, done.rotations)


def change(made: Any, **columns: Any) -> None:
    star = read_star(made.table)
    write_star(made.table, star.with_block(star.block("particles").with_columns(columns)))


def test_an_image_beyond_the_stack_is_named(make_stack: Any, little_model: Path, tmp_path: Path) -> None:
    made = make_stack(tmp_path / "in")
    change(made, rlnImageName=[f"{index + 2:06d}@particles.mrcs" for index in range(12)])
    with pytest.raises(InputError, match=r"row 12, names image 13 of particles.mrcs, which holds 12"):
        predict(made, little_model, tmp_path / "out")


def test_rows_in_another_order_find_their_images(make_stack: Any, little_model: Path, tmp_path: Path) -> None:
    made = make_stack(tmp_path / "in")
    straight = predict(made, little_model, tmp_path / "straight")
    change(made, rlnImageName=[f"{12 - index:06d}@particles.mrcs" for index in range(12)])
    turned = predict(made, little_model, tmp_path / "turned")
    assert_close(turned.rotations, straight.rotations.flip(0))
    change(made, rlnImageName=["000001@particles.mrcs"] * 12)
    notes = predict(made, little_model, tmp_path / "twice").notes
    assert any("11 images of particles.mrcs twice" in note for note in notes)
    assert any("1 of the 12 images" in note for note in notes)


def test_pixel_sizes_that_disagree_are_refused_unless_given(
    make_stack: Any, little_model: Path, tmp_path: Path
) -> None:
    made = make_stack(tmp_path / "in", header_pixel=2.5)
    with pytest.raises(InputError, match=r"says 2 Å per pixel, the header of particles.mrcs 2.5 Å"):
        predict(made, little_model, tmp_path / "out")
    assert predict(made, little_model, tmp_path / "out", pixel_size_angstrom=2.0).exit_code == 0
    unknown = make_stack(tmp_path / "b", header_pixel=1.0)  # 1 means that nobody wrote one
    assert predict(unknown, little_model, tmp_path / "out2").exit_code == 0


def test_a_missing_stack_says_where_it_was_looked_for(make_stack: Any, little_model: Path, tmp_path: Path) -> None:
    made = make_stack(tmp_path / "in")
    made.stack.rename(tmp_path / "in" / "other.mrcs")
    with pytest.raises(InputError, match="--project"):
        predict(made, little_model, tmp_path / "out")


def test_boxes_that_differ_within_a_table_are_refused(make_stack: Any, little_model: Path, tmp_path: Path) -> None:
    made, other = make_stack(tmp_path / "in"), make_stack(tmp_path / "b", box=44)
    other.stack.rename(tmp_path / "in" / "second.mrcs")
    names = [f"{index + 1:06d}@{'particles' if index < 6 else 'second'}.mrcs" for index in range(12)]
    change(made, rlnImageName=names)
    with pytest.raises(InputError, match=r"second.mrcs has boxes of 44 px and particles.mrcs of 40 px"):
        predict(made, little_model, tmp_path / "out")


def test_images_without_anything_in_them_are_refused(make_stack: Any, little_model: Path, tmp_path: Path) -> None:
    made = make_stack(tmp_path / "in")
    write_mrc(made.stack, np.full((12, 40, 40), np.nan, np.float32), pixel_size_angstrom=2.0)
    with pytest.raises(InputError, match="none of 12 images looked at can be used"):
        predict(made, little_model, tmp_path / "out")


def test_a_defocus_without_a_voltage_is_refused(make_stack: Any, little_model: Path, tmp_path: Path) -> None:
    made = make_stack(tmp_path / "in")
    change(made, rlnDefocusU=[15000.0] * 12, rlnDefocusV=[15000.0] * 12, rlnDefocusAngle=[0.0] * 12)
    with pytest.raises(InputError, match="no voltage kv"):
        predict(made, little_model, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "said"),
    [({"hypotheses": 6}, "1 to 5"), ({"symmetry": "Q3"}, "unknown"), ({"pixel_size_angstrom": -1.0}, "0.1 to 50")],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PredictConfig(particles="a.star", model="b", **options)


def test_results_never_replace_the_input(make_stack: Any, little_model: Path, tmp_path: Path) -> None:
    made = make_stack(tmp_path / "in")
    with pytest.raises(OutputError, match="choose another --out"):
        predict(made, little_model, tmp_path / "in")


def test_a_model_says_in_python_what_the_command_writes(make_stack: Any, little_model: Path, tmp_path: Path) -> None:
    made = make_stack(tmp_path / "in")
    done = predict(made, little_model, tmp_path / "out")
    model = load_orient_model(str(little_model))
    assert model.calibration.temperature == 1.5
    assert_close(model.predict(made.table).rotations, done.rotations)

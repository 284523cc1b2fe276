from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.errors import ConfigError, InputError, OutputError
from equivox.formats.coordinates import read_coordinates
from equivox.formats.mrc import read_mrc, write_mrc
from equivox.formats.star import read_star
from equivox.tasks.pick.config import PickSource
from equivox.tasks.pick.evaluate import EvaluateConfig, evaluate_picks, write_evaluation
from equivox.tasks.pick.evaluate_page import render_evaluation, summary_lines
from equivox.tasks.pick.outputs import HEADER, parse_formats
from equivox.tasks.pick.picker import PickOptions, load_pick_model
from equivox.tasks.pick.predict import PickRun, PredictConfig, RunChoice, pick_micrographs
from equivox.tasks.pick.relion_job import micrographs_of, pick_as_job


def truth(folder: Path, name: str) -> np.ndarray:
    rows = [line.split("\t") for line in (folder / "labels.txt").read_text().splitlines()[1:]]
    return np.array([(float(x), float(y)) for found, x, y in rows if found == name])


def found_share(picks: np.ndarray, labels: np.ndarray, tolerance: float) -> tuple[float, float]:
    """Precision and recall by nearest distances."""
    apart = np.hypot(*(picks[:, None, :] - labels[None, :, :]).transpose(2, 0, 1))
    return float((apart.min(1) <= tolerance).mean()), float((apart.min(0) <= tolerance).mean())


def run(picker: Path, inputs: list[str], out: Path, **options: object) -> PickRun:
    config = PredictConfig(model=str(picker), **options)  # type: ignore[arg-type]
    return pick_micrographs(inputs, out, config, RunChoice(overwrite=True))


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "picks.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_picks_lie_on_the_particles_in_pixels_of_the_file(picker: Path, micrographs: Path, tmp_path: Path) -> None:
    finished = run(picker, [str(micrographs)], tmp_path / "out")
    assert finished.exit_code == 0
    rows = rows_of(tmp_path / "out")
    assert tuple(rows[0]) == HEADER
    for name in ("mic_0", "mic_5"):
        own = [row for row in rows if Path(row["micrograph"]).stem == name]
        picks = np.array([(float(row["x_px"]), float(row["y_px"])) for row in own])
        precision, recall = found_share(picks, truth(micrographs, name), 3.0)
        assert precision > 0.85
        assert recall > 0.85
    row = rows[0]
    assert row["micrograph"] == str(micrographs / "mic_0.mrc")
    assert float(row["x_angstrom"]) == pytest.approx(10.0 * float(row["x_px"]), abs=0.01)
    odds = float(row["log_odds"])
    assert float(row["probability"]) == pytest.approx(1.0 / (1.0 + math.exp(-odds)), abs=1e-5)
    assert 0.0 < float(row["pose_confidence"]) <= 1.0
    assert min(float(row["probability"]) for row in rows) >= 0.5
    page = (tmp_path / "out" / "picks.html").read_text()
    assert page.count("data:image/webp") == 6
    assert page.count("data:image/svg+xml") == 2
    document = json.loads((tmp_path / "out" / "picks.json").read_text())
    assert document["picks"] == len(rows)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["outcome"] == "done"


def test_every_program_gets_the_same_picks(picker: Path, micrographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(picker, [str(micrographs / "mic_0.mrc"), str(micrographs / "mic_1.mrc")], out, page=False)
    rows = rows_of(out)
    x = np.array([float(row["x_px"]) for row in rows])
    for name, tolerance in (("autopick.star", 1e-3), ("picks_topaz.txt", 0.51), ("picks.cs", 1e-2)):
        read = read_coordinates(out / name)
        assert len(read) == len(rows)
        assert np.abs(read.x_px - x).max() <= tolerance
    star = read_coordinates(out / "autopick.star")
    assert star.rot_tilt_psi_deg is not None
    assert star.score is not None
    assert star.score[0] == pytest.approx(float(rows[0]["log_odds"]), abs=1e-3)
    assert star.rot_tilt_psi_deg[0].tolist() == pytest.approx(
        [float(rows[0][name]) for name in ("rot_deg", "tilt_deg", "psi_deg")], abs=1e-2
    )
    for kind in ("box", "cbox"):
        read = read_coordinates(out / kind / f"mic_0.{kind}")
        assert read.box_px is not None
        assert read.box_px[0].tolist() == [12.0, 12.0]
        assert np.abs(read.x_px - x[: len(read)]).max() < 1e-2
    assert not (out / "picks.html").exists()
    assert read_star(out / "autopick.star").blocks[0].has("rlnMicrographName", "rlnMicrographCoordinates")
    assert (out / "coords_suffix_autopick.star").read_text().strip().endswith("micrographs.star")


def test_radius_pixel_size_and_contrast_bring_any_file_to_the_size_that_the_model_knows(
    picker: Path, micrographs: Path, make_set: Callable[..., Path], tmp_path: Path
) -> None:
    plain = rows_of(run(picker, [str(micrographs / "mic_3.mrc")], tmp_path / "a", page=False).out)
    bright = make_set(tmp_path / "bright", range(3, 4), sign=1.0)
    inverted = run(picker, [str(bright / "mic_3.mrc")], tmp_path / "b", page=False)
    assert inverted.picks[0].contrast == "bright"
    own = np.array([(float(row["x_px"]), float(row["y_px"])) for row in rows_of(inverted.out)])
    assert found_share(own, truth(bright, "mic_3"), 3.0)[1] > 0.85
    wrong = run(picker, [str(bright / "mic_3.mrc")], tmp_path / "c", page=False, options=PickOptions(contrast="dark"))
    assert len(wrong.picks[0]) < 0.5 * len(inverted.picks[0])
    # a file that says 2.5 Å a pixel holds particles of 15 Å
    fine = make_set(tmp_path / "fine", range(3, 4), pixel_angstrom=2.5)
    small = PickOptions(radius_angstrom=15.0)
    scaled = rows_of(run(picker, [str(fine / "mic_3.mrc")], tmp_path / "d", page=False, options=small).out)
    assert [row["x_px"] for row in scaled] == [row["x_px"] for row in plain]
    assert float(scaled[0]["x_angstrom"]) == pytest.approx(float(plain[0]["x_angstrom"]) / 4, abs=0.01)
    given = PickOptions(pixel_size_angstrom=10.0)
    told = run(picker, [str(fine / "mic_3.mrc")], tmp_path / "e", page=False, options=given)
    assert [row["x_px"] for row in rows_of(told.out)] == [row["x_px"] for row in plain]
    assert any("in its header" in text for text in told.warnings)


def test_an_image_twice_as_fine_gives_the_same_places(picker: Path, micrographs: Path, tmp_path: Path) -> None:
    image = np.asarray(read_mrc(micrographs / "mic_2.mrc").data)
    from equivox.tasks.pick.downsample import fourier_resample

    grown = fourier_resample(image, (3 * image.shape[0], 2 * image.shape[1] + 1)).numpy()
    model = load_pick_model(picker)
    coarse = model.predict(micrographs / "mic_2.mrc")
    write_mrc(tmp_path / "fine.mrc", grown, pixel_size_angstrom=10.0 / 3)
    # columns are off by the factor of the pixel size said; only rows can agree
    fine = model.predict(tmp_path / "fine.mrc", PickOptions(pixel_size_angstrom=10.0 / 3))
    assert fine.file_size_px == grown.shape
    write_mrc(tmp_path / "square.mrc", fourier_resample(image, (300, 340)).numpy(), pixel_size_angstrom=5.0)
    square = model.predict(tmp_path / "square.mrc")
    sure, again = coarse.above(0.5), square.above(0.5)
    assert len(sure) == len(again)
    assert np.abs(np.sort(sure.x_px) * 2 - np.sort(again.x_px)).max() < 0.05
    assert np.abs(np.sort(sure.y_px) * 2 - np.sort(again.y_px)).max() < 0.05


def test_what_cannot_be_picked_is_said_and_the_rest_is_done(picker: Path, micrographs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mikrographien äöü"
    folder.mkdir()
    shutil.copy(micrographs / "mic_0.mrc", folder / "gut ü.mrc")
    (folder / "short.mrc").write_bytes((micrographs / "mic_0.mrc").read_bytes()[:5000])
    write_mrc(folder / "stack.mrc", np.zeros((3, 40, 40), np.float32), pixel_size_angstrom=1.0)
    finished = run(picker, [str(folder), "missing.mrc"], tmp_path / "out", page=True)
    assert finished.exit_code == 1
    lost = {Path(one.entry.name).name: one.reason for one in finished.outcomes if one.result is None}
    assert set(lost) == {"short.mrc", "stack.mrc", "missing.mrc"}
    assert "truncated" in lost["short.mrc"] or "bytes" in lost["short.mrc"]
    assert "no micrograph" in lost["stack.mrc"]
    assert {Path(row["micrograph"]).name for row in rows_of(tmp_path / "out")} == {"gut ü.mrc"}
    assert len(json.loads((tmp_path / "out" / "run.json").read_text())["failures"]) == 3
    nothing = run(picker, ["missing.mrc"], tmp_path / "none")
    assert nothing.exit_code == 3
    assert rows_of(tmp_path / "none") == []
    with pytest.raises(InputError, match="No micrograph"):
        run(picker, [], tmp_path / "empty")


def test_relion_sees_every_micrograph_that_was_picked(picker: Path, micrographs: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(100.0, 20.0, (150, 170)).astype(np.float32)
    write_mrc(tmp_path / "empty.mrc", image, pixel_size_angstrom=10.0)
    (tmp_path / "broken.mrc").write_bytes(b"no micrograph")
    names = [str(tmp_path / "empty.mrc"), str(micrographs / "mic_0.mrc"), str(tmp_path / "broken.mrc")]
    finished = run(picker, names, tmp_path / "out", page=False, min_probability=0.9)
    assert [len(one) > 0 for one in finished.picks] == [False, True]
    listed = read_star(tmp_path / "out" / "autopick.star").block("coordinate_files")
    assert listed.texts("rlnMicrographName") == names[:2]
    block = read_star(listed.texts("rlnMicrographCoordinates")[0]).block("")
    assert len(block) == 0
    assert block.has("rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit", "rlnAnglePsi")
    assert read_star(tmp_path / "out" / "micrographs.star").blocks[0].texts("rlnMicrographName") == names[:2]
    for name in ("autopick.star", "coords_suffix_autopick.star"):
        assert set(read_coordinates(tmp_path / "out" / name).micrograph) == {names[1]}


def test_resume_keeps_what_is_done_and_repeats_what_changed(picker: Path, micrographs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mics"
    shutil.copytree(micrographs, folder)
    out, config = tmp_path / "out", PredictConfig(model=str(picker), page=False)
    first = pick_micrographs([str(folder)], out, config)
    with pytest.raises(OutputError, match="--resume"):
        pick_micrographs([str(folder)], out, config)
    shutil.copy(folder / "mic_1.mrc", folder / "mic_0.mrc")
    (out / "items" / "mic_3.mrc.json").write_text("{")
    resume = RunChoice(resume=True)
    second = pick_micrographs([str(folder)], out, config, resume)
    assert [outcome.resumed for outcome in second.outcomes] == [False, True, True, False, True, True]
    assert (out / "picks.csv").read_text().count("mic_1") == len(first.picks[1])
    edge = PredictConfig(model=str(picker), page=False, options=PickOptions(edge_angstrom=200.0))
    third = pick_micrographs([str(folder)], out, edge, resume)
    assert not any(outcome.resumed for outcome in third.outcomes)
    assert all(float(row["x_angstrom"]) >= 200.0 for row in rows_of(out))
    stricter = PredictConfig(model=str(picker), page=False, options=edge.options, min_probability=0.98)
    fourth = pick_micrographs([str(folder)], out, stricter, resume)  # a threshold asks for no new picking
    assert all(outcome.resumed for outcome in fourth.outcomes)
    assert len(rows_of(out)) == sum(map(len, fourth.picks)) < sum(map(len, third.picks))


def test_what_a_killed_run_was_writing_is_cleared_away(picker: Path, micrographs: Path, tmp_path: Path) -> None:
    inputs, config = [str(micrographs / "mic_0.mrc")], PredictConfig(model=str(picker), page=False)
    pick_micrographs(inputs, tmp_path / "out", config)
    for name in (".writing-12345678-picks.csv", "items/.writing-12345678-mic_1.mrc.json"):
        (tmp_path / "out" / name).write_text("half")
    assert pick_micrographs(inputs, tmp_path / "out", config, RunChoice(resume=True)).outcomes[0].resumed
    assert not list((tmp_path / "out").rglob(".writing-*"))


def test_processes_give_the_same_as_one(picker: Path, micrographs: Path, tmp_path: Path) -> None:
    inputs, config = (
        [str(micrographs / f"mic_{index}.mrc") for index in (0, 1)],
        PredictConfig(model=str(picker), page=False),
    )
    pick_micrographs(inputs, tmp_path / "one", config, RunChoice(threads=1))
    pick_micrographs(inputs, tmp_path / "two", config, RunChoice(workers=2))
    assert (tmp_path / "one" / "picks.csv").read_bytes() == (tmp_path / "two" / "picks.csv").read_bytes()


def test_a_precision_asked_for_is_the_mean_probability_of_what_is_kept(
    picker: Path, micrographs: Path, tmp_path: Path
) -> None:
    finished = run(picker, [str(micrographs)], tmp_path / "out", page=False, precision=0.9)
    probability = np.concatenate([one.probability for one in finished.picks])
    assert 0.9 <= probability.mean() < 0.97
    loose = run(picker, [str(micrographs)], tmp_path / "loose", page=False, precision=0.5)
    assert sum(map(len, loose.picks)) > len(probability)
    with pytest.raises(ConfigError, match="--precision"):
        PredictConfig(precision=1.5)
    with pytest.raises(ConfigError, match="--min-probability"):
        PredictConfig(min_probability=0.0)
    with pytest.raises(ConfigError, match="'boxes'"):
        parse_formats("relion,boxes")
    assert parse_formats("none") == ()


def test_more_rotations_after_training(picker: Path, micrographs: Path) -> None:
    plain = load_pick_model(picker).predict(micrographs / "mic_0.mrc").above(0.5)
    fine = load_pick_model(picker, grid="d4opt-64").predict(micrographs / "mic_0.mrc").above(0.5)
    assert len(plain) > 5
    assert abs(len(fine) - len(plain)) <= 3
    assert len(set(np.round(fine.psi_deg, 3))) >= len(set(np.round(plain.psi_deg, 3)))


def test_as_an_external_job_of_relion(
    picker: Path, micrographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(micrographs, "MotionCorr/job002/mics")
    star = Path("MotionCorr/job002/corrected_micrographs.star")
    star.write_text(
        "# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n1\n\n# version 30001\n\ndata_micrographs\n\n"
        "loop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\n"
        "MotionCorr/job002/mics/mic_0.mrc 1\nMotionCorr/job002/mics/mic_1.mrc 1\n"
    )
    names = micrographs_of([], star)
    assert names == ["MotionCorr/job002/mics/mic_0.mrc", "MotionCorr/job002/mics/mic_1.mrc"]
    out = Path("External/job007")
    config = PredictConfig(model=str(picker), page=False, formats=("relion",), micrographs_star=str(star))

    def go(inputs: list[str]) -> PickRun:
        return pick_as_job(
            inputs, out, config, RunChoice(overwrite=True), job=True, control=None, command=(), progress=None
        )

    go(names)
    assert (out / "mics" / "mic_0_autopick.star").is_file()
    listed = read_coordinates(out / "autopick.star")
    assert set(listed.micrograph) == set(names)
    assert (out / "coords_suffix_autopick.star").read_text().strip() == str(star)
    assert (out / "RELION_JOB_EXIT_SUCCESS").exists()
    assert "External/job007/autopick.star" in (out / "RELION_OUTPUT_NODES.star").read_text()
    with pytest.raises(InputError):
        go([])
    assert (out / "RELION_JOB_EXIT_FAILURE").exists()
    assert not (out / "RELION_JOB_EXIT_SUCCESS").exists()
    star.write_text("data_\n\nloop_\n_rlnCoordinateX #1\n1\n")
    with pytest.raises(InputError, match="_rlnMicrographName"):
        micrographs_of([], star)


def test_an_evaluation_of_a_model_and_of_its_picks_agree(picker: Path, micrographs: Path, tmp_path: Path) -> None:
    source = PickSource(
        micrographs=(str(micrographs),), coordinates=(str(micrographs / "labels.txt"),), radius_angstrom=60.0
    )
    found = evaluate_picks(EvaluateConfig(source=source, model=str(picker), turned=1))
    assert found.curve.area > 0.9
    assert found.band is not None
    assert found.band.low <= found.curve.area <= found.band.high
    assert any("trained on some" in text for text in found.notes)
    by_name = {one.name: one.average_precision for one in found.turned}
    assert by_name["mirrored"] == pytest.approx(by_name["as it lies"], abs=0.03)
    assert by_name["turned by 90°"] == pytest.approx(by_name["as it lies"], abs=0.03)
    assert by_name["turned by 45°, resampled"] > 0.6
    paths = write_evaluation(found, tmp_path / "out", page=render_evaluation(found), overwrite=False)
    assert paths[2].read_text().count("data:image/webp") == 3
    assert any(line.startswith("calibration error") for line in summary_lines(found))
    document = json.loads(paths[0].read_text())
    assert document["average_precision"] == pytest.approx(found.curve.area)
    run(picker, [str(micrographs)], tmp_path / "picks", page=False, min_probability=0.02)
    again = evaluate_picks(EvaluateConfig(source=source, picks=(str(tmp_path / "picks" / "autopick.star"),)))
    assert again.curve.area == pytest.approx(found.curve.area, abs=0.02)
    assert again.measured == {"picks": str(tmp_path / "picks" / "autopick.star")}
    assert render_evaluation(again).count("Reliability") == 0
    perfect = evaluate_picks(EvaluateConfig(source=source, picks=(str(micrographs / "labels.txt"),)))
    assert perfect.curve.area == 1.0
    assert any("no score" in text for text in perfect.notes)
    with pytest.raises(ConfigError, match="either --model or --picks"):
        EvaluateConfig(source=source)
    assert torch.isfinite(found.log_odds).all()

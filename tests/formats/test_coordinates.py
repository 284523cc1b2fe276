"""Coordinates: every program's meaning of its numbers, and round trips between all of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equivox.errors import ConfigError, InputError
from equivox.formats.coordinates import Coordinates, read_coordinates
from equivox.formats.coordinates_star import picks_below_job
from equivox.formats.coordinates_write import write_coordinates
from equivox.formats.micrograph_names import bare_stem, match_names
from equivox.formats.relion_job import write_exit_files, write_picks
from equivox.formats.star import read_star

FIXTURES = Path(__file__).parents[1] / "fixtures"
CRYO, SMALL = FIXTURES / "cryoem", FIXTURES / "projection2d" / "formats"
EXPECTED = json.loads((CRYO / "expected.json").read_text())
CENTRES = [[65, 152], [1815, 1321], [2812, 1744], [1629, 1955], [442, 432]]
SHAPES = {f"mic_{index}.mrc": (4096, 4000) for index in range(4)}


@pytest.mark.parametrize("name", [name for name in EXPECTED if name.startswith("coords/")])
def test_file_is_as_expected(name: str) -> None:
    expected, found = EXPECTED[name], read_coordinates(CRYO / name)
    assert len(found) == expected["rows"]
    if "micrographs" in expected:
        assert len(found.by_micrograph()) == expected["micrographs"]
    if expected["rows"] in (5, 12):
        assert np.stack([found.x_px, found.y_px], axis=1)[:5].tolist() == CENTRES
    if "box" in expected:
        assert found.box_px is not None
        assert (found.box_px == expected["box"]).all()
        corners = np.stack([found.x_px, found.y_px], axis=1) - expected["box"] / 2
        assert int((corners < 0).any(axis=1).sum()) == expected["negative_corners"]
        assert found.score is not None
        assert (found.score.min(), found.score.max()) == (expected["score_min"], expected["score_max"])


def test_boxes_have_corners_and_topaz_has_centres() -> None:
    expected = json.loads((SMALL / "expected.json").read_text())
    box = read_coordinates(SMALL / "a_0001.box")
    assert np.stack([box.x_px, box.y_px], axis=1).tolist() == expected["a_0001.box"]["centres"]
    topaz = read_coordinates(SMALL / "picks_topaz.txt")
    rows = [[*row] for row in zip(topaz.micrograph, topaz.x_px, topaz.y_px, topaz.score, strict=True)]  # type: ignore[arg-type]
    assert rows == expected["picks_topaz.txt"]["rows"]


def test_fractions_of_cryosparc_become_pixels() -> None:
    expected = json.loads((SMALL / "expected.json").read_text())["particles.cs"]
    found = read_coordinates(SMALL / "particles.cs")
    np.testing.assert_allclose(found.x_px, expected["x_px"], rtol=1e-6)
    np.testing.assert_allclose(found.y_px, expected["y_px_row_from_array_top"], rtol=1e-6)


def test_unset_angles_are_not_numbers_of_angles() -> None:
    found = read_coordinates(CRYO / "star" / "mic_000_autopick.star")
    assert found.micrograph == ("mic_000",) * 5
    assert found.rot_tilt_psi_deg is None


REFUSED = {
    "topaz_no_header.txt": "no header", "topaz_missing_column.txt": "no column y_coord",
    "topaz_not_a_number.txt": "line 2 .row 1.: y_coord is 'twenty'", "short.box": "line 1, has 3 values",
    "empty.txt": "0 bytes",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_fault_is_one_sentence(name: str) -> None:
    with pytest.raises(InputError, match=REFUSED[name]):
        read_coordinates(CRYO / "coords_broken" / name)


def test_duplicates_are_said_and_the_best_is_kept(tmp_path: Path) -> None:
    found = read_coordinates(CRYO / "coords_broken" / "topaz_duplicates.txt")
    assert len(found) == 1
    assert "1 pick stands exactly on another" in found.warnings[0]
    (tmp_path / "a.txt").write_text("image_name\tx_coord\ty_coord\tscore\na\t1\t2\t0.5\na\t1\t2\t0.9\na\t3\t4\t0\n")
    best = read_coordinates(tmp_path / "a.txt")
    assert best.score is not None
    assert best.score.tolist() == [0.9, 0.0]


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("a.box", "1 2 0 5\n", "positive"),
        ("a.csv", "x,y\n1,2\n3\n", "line 3, has 1 cells"),
        ("a.csv", "x,y,x\n1,2,3\n", "twice"),
        ("a.csv", "micrograph,x,y\n,2,3\n", "name is empty"),
        ("a.csv", "x,y\n1,inf\n", "'inf'"),
        ("a.txt", "# only a comment\n", "no line of data"),
        ("a.json", '{"tag": 1}', "no EMAN2 file"),
        ("a.star", "data_micrographs\nloop_\n_rlnMicrographName\na.mrc\n", "lists micrographs"),
        ("a.star", "data_x\n_a 1\n", "has no coordinates"),
    ],
)
def test_other_faults_are_said(name: str, text: str, word: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=word):
        read_coordinates(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mic_7_info.json", '{"boxes": [[10.5, 20, "manual"]]}'),
        ("mic_7.csv", "x-coordinate;y-coordinate\n10.5;20\n"),
        ("mic_7.txt", "x y\n10.5 20\n"),
        ("mic_7.box", "5.5 15 10 10 -3\n"),
        ("via.csv", 'filename,region_shape_attributes\nmic_7,"{""cx"": 10.5, ""cy"": 20, ""r"": 4}"\nmic_8,"{}"\n'),
        ("mic_7_autopick.star", "\ufeffdata_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n10.5 20\n"),
        ("b.csv", "\ufeffmicrograph,x_px,y_px\nmic_7,10.5,20\n"),
    ],
)
def test_further_kinds_of_file(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = read_coordinates(tmp_path / name)
    assert (found.micrograph, found.x_px.tolist(), found.y_px.tolist()) == (("mic_7",), [10.5], [20.0])
    assert found.score is None


def made(seed: int, count: int = 9, *, score: bool = True, angles: bool = True) -> Coordinates:
    draw = np.random.default_rng(seed)
    return Coordinates(
        Path("made"), "csv", tuple(f"mic_{index % 3}.mrc" for index in range(count)), draw.uniform(0, 4000, count),
        draw.uniform(0, 4096, count), draw.normal(size=count) if score else None,
        np.full((count, 2), 180.0), draw.uniform(-170, 170, (count, 3)) if angles else None,
    )  # fmt: skip


ROUNDING = {"topaz": 0.5, "cs": 3e-4, "star": 1e-6, "relion": 1e-6, "box": 1e-5, "cbox": 1e-6, "csv": 1e-4}
ENDING = {"topaz": "a.txt", "cs": "a.cs", "star": "a.star", "csv": "a.csv", "relion": "job", "box": "b", "cbox": "c"}


@pytest.mark.parametrize("to", ROUNDING)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), score=st.booleans())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, to: str, seed: int, score: bool) -> None:
    folder = tmp_path_factory.mktemp("round")
    before = made(seed, score=score)
    written = write_coordinates(folder / ENDING[to], before, to, shapes=SHAPES)  # type: ignore[arg-type]
    sources = written if to in ("box", "cbox") else written[:1]
    after = [read_coordinates(path) for path in sources]
    found = {(name[:5], x, y): s for part in after for name, x, y, s in _rows(part)}
    assert len(found) == len(before)
    for name, x, y, s in _rows(before):
        key = min((key for key in found if key[0] == name[:5]), key=lambda k: abs(k[1] - x) + abs(k[2] - y))
        assert abs(key[1] - x) <= ROUNDING[to]
        assert abs(key[2] - y) <= ROUNDING[to]
        if score:
            assert found[key] == pytest.approx(s, abs=1e-5)


def _rows(coordinates: Coordinates) -> list[tuple[str, float, float, float]]:
    score = np.zeros(len(coordinates)) if coordinates.score is None else coordinates.score
    columns = (coordinates.micrograph, coordinates.x_px.tolist(), coordinates.y_px.tolist(), score.tolist())
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("version", ["3.0", "3.1", "5"])
def test_relions_lists_lead_to_the_picks(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("MotionCorr/job002/mics/a_0001.mrc", "MotionCorr/job002/mics/a_0002.mrc")
    picks = made(3, 6)
    from dataclasses import replace

    picks = replace(picks, micrograph=tuple(names[index % 2] for index in range(6)))
    write_picks(Path("AutoPick/job009"), picks, version=version)  # type: ignore[arg-type]
    assert Path("AutoPick/job009/mics/a_0001_autopick.star").is_file()
    listed = read_star("AutoPick/job009/autopick.star").block("coordinate_files")
    assert listed.texts("rlnMicrographCoordinates") == [f"AutoPick/job009/mics/a_000{i}_autopick.star" for i in (1, 2)]
    for name in ("autopick.star", "coords_suffix_autopick.star"):
        back = read_coordinates(Path("AutoPick/job009") / name)
        assert back.micrograph == (names[0],) * 3 + (names[1],) * 3
        assert back.x_px.tolist() == pytest.approx([*picks.x_px[::2], *picks.x_px[1::2]], abs=1e-6)
        assert back.rot_tilt_psi_deg is not None
    monkeypatch.chdir("/")  # the list is found from elsewhere too
    assert len(read_coordinates(tmp_path / "AutoPick/job009/autopick.star")) == 6


def test_figures_of_merit_stay_moderate_and_unknown_angles_unset(tmp_path: Path) -> None:
    from dataclasses import replace

    picks = replace(made(1, 2, angles=False), score=np.array([1e9, -1e9]))
    write_picks(tmp_path, picks)
    block = read_star(next(tmp_path.glob("*_autopick.star"))).block("")
    assert abs(float(block.numbers("rlnAutopickFigureOfMerit")[0])) == 1e4
    assert block.texts("rlnAnglePsi") == ["-999.000000"]
    assert not block.has("rlnAngleRot")


def test_an_external_job_ends_as_relion_expects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_exit_files("External/job005", success=False)
    assert Path("External/job005/RELION_JOB_EXIT_FAILURE").is_file()
    write_exit_files("External/job005", success=True)
    assert not Path("External/job005/RELION_JOB_EXIT_FAILURE").exists()
    nodes = read_star("External/job005/RELION_OUTPUT_NODES.star").block("output_nodes")
    assert nodes.texts("rlnPipeLineNodeName") == ["External/job005/autopick.star"]
    assert Path("External/job005/RELION_JOB_EXIT_SUCCESS").is_file()


def test_a_listed_file_that_is_missing_is_said(tmp_path: Path) -> None:
    text = "data_coordinate_files\nloop_\n_rlnMicrographName\n_rlnMicrographCoordinates\n"
    (tmp_path / "one.star").write_text("data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n1 2\n")
    (tmp_path / "autopick.star").write_text(f"{text}a.mrc {tmp_path}/one.star\nb.mrc {tmp_path}/two.star\n")
    found = read_coordinates(tmp_path / "autopick.star")
    assert found.micrograph == ("a.mrc",)
    assert "two.star" in found.warnings[0]
    (tmp_path / "one.star").unlink()
    with pytest.raises(InputError, match="leads to no coordinates"):
        read_coordinates(tmp_path / "autopick.star")


def test_what_a_format_needs_is_asked_for(tmp_path: Path) -> None:
    from dataclasses import replace

    picks = replace(made(1), box_px=None)
    with pytest.raises(ConfigError, match="--box-px"):
        write_coordinates(tmp_path / "b", picks, "box")
    with pytest.raises(ConfigError, match="3 micrographs"):
        write_coordinates(tmp_path / "b.box", picks, "box", box_px=10.0)
    with pytest.raises(InputError, match="--micrographs"):
        write_coordinates(tmp_path / "b.cs", picks, "cs")
    assert list(tmp_path.iterdir()) == []
    twice = replace(picks, micrograph=("a/mic.mrc", "b/mic.mrc", *picks.micrograph[2:]))
    with pytest.raises(InputError, match="both be written"):
        write_coordinates(tmp_path / "b", twice, "box", box_px=10.0)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a/mic_1.mrc", 0), ("b/mic_1.mrc", 1), ("job/b/mic_1_autopick.star", 1), ("mic_2", 2), ("mic_2_DW.tif", 2),
        ("000123456789012345678_mic_2_patch_aligned_doseweighted.mrc", 2), ("mic_1", -1), ("mic_20", -1), ("", -1),
    ],
)  # fmt: skip
def test_names_are_matched(name: str, found: int) -> None:
    matching = match_names([name], ["a/mic_1.mrc", "b/mic_1.mrc", "raw/mic_2.mrc"])
    assert matching.found == (found,)
    assert (name in matching.reasons) == (found < 0)


def test_reasons_help() -> None:
    reasons = match_names(["mic_1", "mic_3"], ["a/mic_1.mrc", "b/mic_1.mrc", "raw/mic_2.mrc"]).reasons
    assert "2 micrographs fit it (a/mic_1.mrc, b/mic_1.mrc)" in reasons["mic_1"]
    assert "the nearest is" in reasons["mic_3"]
    assert bare_stem("x_DW.mrc") == "x"
    assert str(picks_below_job("/abs/mics/a.mrc")) == "abs/mics/a_autopick.star"


def test_cryolo_gets_probabilities_where_there_are_any(tmp_path: Path) -> None:
    picks = made(1, 3)
    picks = Coordinates(
        picks.path, "csv", ("a.mrc",) * 3, picks.x_px, picks.y_px, np.array([4.0, -1.0, 0.0]), picks.box_px, None,
        {"probability": ("0.9", "0.3", "0.5")},
    )  # fmt: skip
    write_coordinates(tmp_path, picks, "cbox")
    back = read_coordinates(tmp_path / "a.cbox")
    assert back.score is not None
    assert back.score.tolist() == [0.9, 0.3, 0.5]

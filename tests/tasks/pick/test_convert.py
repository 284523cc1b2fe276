"""``pick convert``: what is written means the same places, and what cannot be meant is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from equivox.cli.options import Output
from equivox.cli.pick_convert import PixelOptions, convert
from equivox.errors import ConfigError, InputError, OutputError
from equivox.formats.coordinates import read_coordinates
from equivox.formats.mrc import write_mrc
from equivox.formats.particles import read_particles
from equivox.formats.star import read_star
from equivox.tasks.pick.convert import ConvertConfig, convert_picks
from equivox.tasks.pick.convert_particles import convert_particles, holds_particles

CRYO = Path(__file__).parents[2] / "fixtures" / "cryoem"


@pytest.fixture
def micrographs(tmp_path: Path) -> Path:
    """Three micrographs of 4000 columns and 4096 rows; nothing of them is stored but their header."""
    folder = tmp_path / "mics"
    for index in range(3):
        write_mrc(folder / f"mic_00{index}.mrc", np.zeros((4, 8), np.int8), pixel_size_angstrom=1.5)
        path = folder / f"mic_00{index}.mrc"
        content = bytearray(path.read_bytes()[:1024])
        content[0:8] = np.array([4000, 4096], "<i4").tobytes()
        content[28:36] = np.array([4000, 4096], "<i4").tobytes()
        content[40:48] = np.array([6000.0, 6144.0], "<f4").tobytes()
        with path.open("wb") as file:
            file.write(content)
            file.truncate(1024 + 4000 * 4096)
    return folder


def xy(path: Path) -> np.ndarray:
    found = read_coordinates(path)
    return np.stack([found.x_px, found.y_px], axis=1)


@pytest.mark.parametrize("to", ["topaz", "csv", "star", "relion", "box", "cbox", "cs"])
@pytest.mark.parametrize("source", ["coords/topaz.txt", "star/relion31.star", "cs/particles_no_pose.cs"])
def test_every_format_reaches_every_other(
    source: str, to: str, tmp_path: Path, micrographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path({"topaz": "a.txt", "csv": "a.csv", "star": "a.star", "cs": "a.cs"}.get(to, "folder"))
    config = ConvertConfig(to=to, box_px=100.0)  # type: ignore[arg-type]
    done = convert_picks([CRYO / source], out, config, micrographs=["mics"])
    assert (done.picks, done.micrographs, done.exit_code) == (12, 3, 0)
    assert not any("lie" in text for text in done.warnings)
    again = convert_picks([out / "autopick.star" if to == "relion" else out], Path("again.csv"), micrographs=["mics"])
    assert again.picks == 12
    truth = np.load(CRYO / "particles_truth.npz")["coord_px"]
    rounding = 0.51 if "topaz" in (to, Path(source).stem) else 2e-3
    assert np.abs(np.sort(xy(Path("again.csv")), axis=0) - np.sort(truth, axis=0)).max() < rounding
    assert set(read_coordinates("again.csv").micrograph) == {f"mics/mic_00{index}.mrc" for index in range(3)}


def test_scaling_by_pixel_sizes_and_by_a_factor_agree(tmp_path: Path) -> None:
    sizes = ConvertConfig(from_pixel_size_angstrom=8.0, to_pixel_size_angstrom=2.0)
    convert_picks([CRYO / "coords/mic_000_scored.box"], tmp_path / "a.csv", sizes)
    convert_picks([CRYO / "coords/mic_000_scored.box"], tmp_path / "b.csv", ConvertConfig(scale=4.0))
    assert np.array_equal(xy(tmp_path / "a.csv"), xy(tmp_path / "b.csv"))
    assert np.array_equal(xy(tmp_path / "a.csv"), 4.0 * xy(CRYO / "coords/mic_000_scored.box"))
    box = read_coordinates(tmp_path / "a.csv").box_px
    assert box is not None
    assert (box == 400).all()
    convert_picks([CRYO / "coords/mic_000.box"], tmp_path / "c.csv", ConvertConfig(scale=4.0, averaged=True))
    assert np.array_equal(xy(tmp_path / "c.csv"), 4.0 * xy(CRYO / "coords/mic_000.box") + 1.5)
    back = ConvertConfig(scale=0.25, averaged=True)
    convert_picks([tmp_path / "c.csv"], tmp_path / "d.csv", back)
    assert np.allclose(xy(tmp_path / "d.csv"), xy(CRYO / "coords/mic_000.box"))


def test_two_flips_are_none_and_one_counts_from_the_last_row(tmp_path: Path, micrographs: Path) -> None:
    flip = ConvertConfig(flip_y=True)
    convert_picks([CRYO / "coords/topaz.txt"], tmp_path / "a.csv", flip, micrographs=[micrographs])
    once, before = xy(tmp_path / "a.csv"), xy(CRYO / "coords/topaz.txt")
    assert np.array_equal(once[:, 1], 4095 - before[:, 1])
    assert np.array_equal(once[:, 0], before[:, 0])
    convert_picks([tmp_path / "a.csv"], tmp_path / "b.csv", ConvertConfig(flip_y=True, height_px=4096))
    assert np.array_equal(xy(tmp_path / "b.csv"), before)
    with pytest.raises(ConfigError, match="needs the height of mic_000"):
        convert_picks([CRYO / "coords/topaz.txt"], tmp_path / "c.csv", flip)


def test_unmatched_names_and_unreadable_files_are_listed_and_the_others_done(tmp_path: Path, micrographs: Path) -> None:
    (micrographs / "mic_002.mrc").unlink()
    (micrographs / "broken.mrc").write_bytes(b"x" * 10)
    sources = [CRYO / "coords/topaz.txt", CRYO / "coords_broken/topaz_unknown_micrograph.txt",
               CRYO / "coords_broken/topaz_no_header.txt", tmp_path / "nothing.star"]  # fmt: skip
    done = convert_picks(sources, tmp_path / "a.star", micrographs=[micrographs])
    assert done.exit_code == 1
    reasons = dict(done.failures)
    assert done.picks == 9
    assert "no micrograph has this name" in reasons["mic_002"]
    assert "no micrograph has this name" in reasons["mic_999"]
    assert any("no header" in reason for reason in reasons.values())
    assert any("does not exist" in reason for reason in reasons.values())
    assert any("10 bytes" in reason for reason in reasons.values())


def test_names_that_all_match_nothing_are_refused(tmp_path: Path, micrographs: Path) -> None:
    with pytest.raises(InputError, match=r"None of the 1 names .* 'mic_999': no micrograph has this name"):
        convert_picks(
            [CRYO / "coords_broken/topaz_unknown_micrograph.txt"], tmp_path / "a.star", micrographs=[micrographs]
        )
    assert not (tmp_path / "a.star").exists()


def test_coordinates_outside_are_left_out_and_said(tmp_path: Path, micrographs: Path) -> None:
    (tmp_path / "a.txt").write_text("image_name\tx_coord\ty_coord\nmic_000\t5000\t20\nmic_000\t3\t20\nmic_000\t9\t9\n")
    done = convert_picks([tmp_path / "a.txt"], tmp_path / "b.txt", micrographs=[micrographs])
    assert done.picks == 2
    assert any("1 of 3 coordinates lie outside" in text and "x 5000, y 20" in text for text in done.warnings)
    assert any("2 micrographs without picks" in text for text in done.warnings)
    assert any("All 2 picks are on one of 3 micrographs" in text for text in done.warnings)
    kept = ConvertConfig(keep_outside=True)
    assert convert_picks([tmp_path / "a.txt"], tmp_path / "c.txt", kept, micrographs=[micrographs]).picks == 3
    source = CRYO / "coords_broken/topaz_out_of_bounds.txt"
    with pytest.raises(InputError, match=r"2 of 2 coordinates lie outside.*--scale"):
        convert_picks([source], tmp_path / "d.txt", micrographs=[micrographs])


def disc_micrograph(path: Path, centres: np.ndarray, *, rows: int = 300, columns: int = 400) -> None:
    draw = np.random.default_rng(3)
    y, x = np.mgrid[:rows, :columns]
    pixels = draw.normal(size=(rows, columns))
    for cx, cy in centres:
        pixels -= 4.0 * (((x - cx) ** 2 + (y - cy) ** 2) < 36)
    write_mrc(path, pixels.astype(np.float32), pixel_size_angstrom=4.0)


def test_picks_upside_down_or_of_binned_pixels_are_said(tmp_path: Path) -> None:
    draw = np.random.default_rng(7)
    centres = np.stack([draw.uniform(10, 390, 70), 150 - np.abs(draw.normal(scale=60, size=70)).clip(0, 140)], axis=1)
    disc_micrograph(tmp_path / "m.mrc", centres)
    rows = "\n".join(f"m,{x:.2f},{y:.2f}" for x, y in centres)
    (tmp_path / "right.csv").write_text(f"micrograph,x,y\n{rows}\n")
    done = convert_picks([tmp_path / "right.csv"], tmp_path / "a.csv", micrographs=[tmp_path / "m.mrc"])
    assert not any("--flip-y" in text or "binned" in text for text in done.warnings)
    flip = ConvertConfig(flip_y=True)
    done = convert_picks([tmp_path / "right.csv"], tmp_path / "b.csv", flip, micrographs=[tmp_path / "m.mrc"])
    assert any("before --flip-y" in text and "leave it out" in text for text in done.warnings)
    disc_micrograph(tmp_path / "other.mrc", centres[:1])
    done = convert_picks(
        [tmp_path / "right.csv"], tmp_path / "job", ConvertConfig(to="relion"),
        micrographs=[tmp_path / "m.mrc", tmp_path / "other.mrc"],
    )  # fmt: skip
    listed = read_star(tmp_path / "job" / "autopick.star").block("coordinate_files").texts("rlnMicrographName")
    assert listed == [str(tmp_path / "m.mrc"), str(tmp_path / "other.mrc")]
    small = ConvertConfig(scale=0.25)
    done = convert_picks([tmp_path / "right.csv"], tmp_path / "c.csv", small, micrographs=[tmp_path / "m.mrc"])
    assert any("binned about 4" in text for text in done.warnings)


def test_real_labels_are_recognised_upside_down(tmp_path: Path, shared_path: Callable[[str], Path]) -> None:
    folder = shared_path("data/cryoem/apoferritin_10146")
    micrographs = sorted(folder.glob("*.mrc"))[:2]
    for flip in (False, True):
        config = ConvertConfig(flip_y=flip)
        done = convert_picks([folder / "coordinates.txt"], tmp_path / f"{flip}.csv", config, micrographs=micrographs)
        assert any("upside down" in text for text in done.warnings) == flip
        assert done.exit_code == 1  # the other micrographs of the list are not given


def test_a_threshold_keeps_the_best(tmp_path: Path) -> None:
    done = convert_picks([CRYO / "coords/topaz_scores.txt"], tmp_path / "a.csv", ConvertConfig(threshold=0.0))
    assert done.picks == 7
    with pytest.raises(ConfigError, match="has no scores"):
        convert_picks([CRYO / "coords/topaz.txt"], tmp_path / "b.csv", ConvertConfig(threshold=0.0))


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    convert_picks([CRYO / "coords/topaz.txt"], tmp_path / "a.csv")
    with pytest.raises(OutputError, match="--overwrite"):
        convert_picks([CRYO / "coords/topaz.txt"], tmp_path / "a.csv")
    convert_picks([CRYO / "coords/topaz.txt"], tmp_path / "a.csv", overwrite=True)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"scale": 2.0, "from_pixel_size_angstrom": 1.0, "to_pixel_size_angstrom": 2.0}, "exclude"),
        ({"from_pixel_size_angstrom": 1.0}, "belong together"),
        ({"scale": -1.0}, "positive"),
        ({"scale": float("nan")}, "positive"),
        ({"box_px": 0.0}, "positive"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, float], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        ConvertConfig(**options)  # type: ignore[arg-type]


def test_particle_tables_keep_poses_and_microscope(tmp_path: Path, micrographs: Path) -> None:
    source = CRYO / "cs" / "particles.cs"
    assert holds_particles([source], "star")
    assert not holds_particles([CRYO / "star/mic_000_autopick.star"], "star")
    assert not holds_particles([source], "box")
    flip = ConvertConfig(flip_y=True, version="3.1")
    convert_particles(source, tmp_path / "p.star", flip, "star")
    truth, found = np.load(CRYO / "particles_truth.npz"), read_particles(tmp_path / "p.star")
    assert found.layout == "relion-3.1"
    assert found.y_px is not None
    assert np.allclose(found.y_px, 4095 - truth["coord_px"][:, 1], atol=1e-3)
    assert np.allclose(found.require_rotations(), truth["R_volume_to_image"], atol=1e-6)
    back = ConvertConfig(flip_y=True)
    done = convert_particles(tmp_path / "p.star", tmp_path / "q.cs", back, "cs", micrographs=[micrographs])
    assert done.exit_code == 0
    again = read_particles(tmp_path / "q.cs")
    assert again.y_px is not None
    assert np.allclose(again.y_px, truth["coord_px"][:, 1], atol=2e-3)
    assert np.allclose(again.require_rotations(), truth["R_volume_to_image"], atol=1e-6)


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = CRYO / "coords/mic_000.box"
    options = PixelOptions(scale=2.0)
    assert convert([source], out=tmp_path / "a.star", pixels=options, output=Output(json=True)) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["results"][0]["picks"] == 5
    assert "5 picks on 1 micrographs to star" in captured.err
    assert np.array_equal(xy(tmp_path / "a.star"), 2 * xy(source))
    assert convert([CRYO / "cs/particles.cs"], out=tmp_path / "b.star", output=Output(quiet=True)) == 0
    assert read_particles(tmp_path / "b.star").rotations is not None
    assert capsys.readouterr().err == ""

"""Micrographs from MRC, TIFF and PNG: the same pixels, and a pixel size that is never invented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from equivox.errors import ConfigError, InputError
from equivox.formats.micrographs import find_micrographs, open_micrograph
from equivox.formats.mrc import write_mrc

CRYO = Path(__file__).parents[1] / "fixtures" / "cryoem"
SMALL = Path(__file__).parents[1] / "fixtures" / "projection2d" / "formats"
tifffile = pytest.importorskip("tifffile")


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 60000, (40, 50)).astype(np.uint16)


def test_the_same_image_in_three_formats(tmp_path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    write_mrc(tmp_path / "a.mrc", pixels, pixel_size_angstrom=1.5)
    tifffile.imwrite(tmp_path / "a.tif", pixels, resolution=(1e8 / 1.5, 1e8 / 1.5), resolutionunit="CENTIMETER")
    tifffile.imwrite(tmp_path / "packed.tif", pixels, compression="zlib")
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for name, size in (("a.mrc", 1.5), ("a.tif", 1.5), ("packed.tif", None), ("a.png", None)):
        found = open_micrograph(tmp_path / name)
        assert np.array_equal(found.pixels, pixels)
        assert found.pixel_size_angstrom == (None if size is None else pytest.approx(size, rel=1e-5))
        assert bool(found.warnings) == (size is None)
    assert isinstance(open_micrograph(tmp_path / "a.tif").pixels, np.memmap)
    with pytest.raises(InputError, match="--pixel-size-angstrom"):
        open_micrograph(tmp_path / "a.png").require_pixel_size()


def test_a_given_pixel_size_overrides_and_the_difference_is_said() -> None:
    path = CRYO / "mrc" / "micrograph_mode2.mrc"
    assert open_micrograph(path).pixel_size_angstrom == 8.0
    given = open_micrograph(path, pixel_size_angstrom=1.25)
    assert given.require_pixel_size() == 1.25
    assert "8 Å" in given.warnings[0]
    stale = open_micrograph(SMALL / "mode2_stale_mx.mrc", pixel_size_angstrom=8.0)
    assert all("binned" not in text for text in stale.warnings)
    with pytest.raises(ConfigError, match="-1"):
        open_micrograph(path, pixel_size_angstrom=-1.0)


@pytest.mark.parametrize("name", ["zero_pixel", "nan_pixel"])
def test_a_header_without_a_pixel_size_gives_none(name: str) -> None:
    found = open_micrograph(CRYO / "mrc_broken" / f"{name}.mrc")
    assert found.pixel_size_angstrom is None
    assert "no usable pixel size" in found.warnings[0]


def test_one_angstrom_is_doubted_and_an_empty_image_said(tmp_path: Path) -> None:
    write_mrc(tmp_path / "a.mrc", np.full((20, 20), 3.0, np.float32), pixel_size_angstrom=1.0)
    warnings = open_micrograph(tmp_path / "a.mrc").warnings
    assert any("exactly 1 Å" in text for text in warnings)
    assert any("every pixel has the value 3" in text for text in warnings)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("mrc/stack.mrcs", "12 images of 24 x 24 pixels: a stack"),
        ("mrc/volume.mrc", "6 sections"),
        ("mrc_broken/nan_data.mrc", "4 samples"),
        ("mrc_broken/truncated_data.mrc", "truncated"),
        ("coords/topaz.txt", "no micrograph by its name"),
    ],
)
def test_what_is_no_micrograph_is_refused(name: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        open_micrograph(CRYO / name)


def test_other_pictures_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    tifffile.imwrite(tmp_path / "movie.tif", np.stack([pixels, pixels]))
    tifffile.imwrite(tmp_path / "colour.tif", np.zeros((20, 20, 3), np.uint8), photometric="rgb")
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "colour.png")
    (tmp_path / "half.tif").write_bytes((tmp_path / "movie.tif").read_bytes()[:100])
    Image.fromarray(pixels).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    for name in ("a.eer", "a.dm4"):
        (tmp_path / name).write_bytes(b"x")
    words = {
        "movie.tif": "2 images", "colour.tif": "grey", "colour.png": "colour", "half.tif": "cannot be read",
        "half.png": "cannot be read", "a.eer": "movie", "a.dm4": "convert", "missing.mrc": "does not exist",
    }  # fmt: skip
    for name, word in words.items():
        with pytest.raises(InputError, match=word):
            open_micrograph(tmp_path / name)


def test_names_with_other_letters_work(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "Müller 粒子" / "画像 1.mrc"
    write_mrc(path, pixels, pixel_size_angstrom=2.0)
    found = find_micrographs([path.parent])
    assert [entry.below for entry in found] == ["画像 1.mrc"]
    assert open_micrograph(found[0].path).pixel_size_angstrom == 2.0


def test_folders_globs_and_names_expand_each_once(tmp_path: Path, pixels: np.ndarray) -> None:
    for name in ("a/1.mrc", "a/2.mrc", "b/1.mrc", "a/.writing-3.mrc", "a/s.mrcs"):
        write_mrc(tmp_path / name, pixels, pixel_size_angstrom=2.0)
    (tmp_path / "empty").mkdir()
    found = find_micrographs([tmp_path / "a", str(tmp_path / "*/1.mrc"), tmp_path / "empty", tmp_path / "a/2.mcr"])
    assert [entry.path.relative_to(tmp_path).as_posix() for entry in found if not entry.problem] == [
        "a/1.mrc", "a/2.mrc", "b/1.mrc",
    ]  # fmt: skip
    problems = [entry.problem for entry in found if entry.problem]
    assert "holds no micrograph" in problems[0]
    assert "did you mean 2.mrc?" in problems[1]
    assert [entry.below for entry in find_micrographs([tmp_path])][:2] == ["a/1.mrc", "a/2.mrc"]
    with pytest.raises(InputError, match="No micrograph was given"):
        find_micrographs([])

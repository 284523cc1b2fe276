"""Image files: what is read of them, what is said of broken ones, and how folders name classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from equivox.errors import InputError
from equivox.formats.galaxy_zoo import class_of_string, class_of_votes, is_galaxy_table, read_galaxy_table
from equivox.formats.pictures import find_pictures, labelled_pictures, read_picture


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "ppm", "webp"])
def test_lossless_files_come_back_pixel_for_pixel(ending: str, pixels: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{ending}"
    Image.fromarray(pixels).save(path, **({"lossless": True} if ending == "webp" else {}))
    found = read_picture(path)
    assert found.shape == (3, 7, 11)
    torch.testing.assert_close(found, torch.from_numpy(pixels).permute(2, 0, 1))
    torch.testing.assert_close(read_picture(path.read_bytes(), name="bytes"), found)


def test_sixteen_bits_transparency_palettes_and_cameras(pixels: np.ndarray, tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 77).reshape(7, 11).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    torch.testing.assert_close(
        read_picture(tmp_path / "deep.png", channels=1)[0], torch.from_numpy((deep // 257).astype(np.uint8))
    )
    assert read_picture(tmp_path / "deep.png").shape == (3, 7, 11)
    Image.fromarray(pixels).convert("RGBA").save(tmp_path / "clear.png")
    torch.testing.assert_close(read_picture(tmp_path / "clear.png"), torch.from_numpy(pixels).permute(2, 0, 1))
    Image.fromarray(pixels).convert("P").save(tmp_path / "palette.gif")
    assert read_picture(tmp_path / "palette.gif").shape == (3, 7, 11)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(pixels).save(tmp_path / "camera.tif", exif=exif)
    turned = read_picture(tmp_path / "camera.tif")
    torch.testing.assert_close(turned, torch.from_numpy(pixels).permute(2, 0, 1).rot90(-1, (1, 2)))


def test_broken_files_are_one_sentence_each(pixels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "float.tif")
    cases = {
        "cut.png": (whole[: len(whole) // 2], "damaged image"),
        "empty.png": (b"", "is empty"),
        "text.jpg": (b"this is text, not pixels", "is no image"),
        "flipped.png": (whole[:60] + bytes([whole[60] ^ 255]) + whole[61:], "damaged image"),
    }
    for name, (content, words) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=words) as caught:
            read_picture(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(InputError, match="floating-point"):
        read_picture(tmp_path / "float.tif")
    with pytest.raises(InputError, match="does not exist"):
        read_picture(tmp_path / "absent.png")


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8)).save(folder / name)


def test_classes_are_folders_with_or_without_parts(tmp_path: Path) -> None:
    make(tmp_path / "a", "cat/1.png", "cat/2.png", "dog/1.png")
    found, problems = labelled_pictures(tmp_path / "a")
    assert [(one.label, one.split) for one in found] == [("cat", ""), ("cat", ""), ("dog", "")]
    assert problems == []
    for layout in ("train/cat/1.png", "cat/train/1.png"):
        make(tmp_path / layout[:5], layout, layout.replace("train", "val"), layout.replace("train", "test"))
        found, _ = labelled_pictures(tmp_path / layout[:5])
        assert {(one.label, one.split) for one in found} == {("cat", "train"), ("cat", "validation"), ("cat", "test")}


def test_what_has_no_class_or_no_picture_is_named(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.png", "dog/1.png", "lost.png", ".hidden/1.png")
    (tmp_path / "bird").mkdir()
    found, problems = labelled_pictures(tmp_path)
    assert len(found) == 2
    assert any("lost.png lies in no class folder" in line for line in problems)
    assert any("the class 'bird' is left out" in line for line in problems)
    make(tmp_path / "parts", "train/1.png", "test/1.png")
    with pytest.raises(InputError, match="which are parts, not classes"):
        labelled_pictures(tmp_path / "parts")
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        labelled_pictures(tmp_path / "bare")
    with pytest.raises(InputError, match="does not exist"):
        labelled_pictures(tmp_path / "nothing")


def test_a_table_gives_labels_and_says_what_does_not_fit(tmp_path: Path) -> None:
    make(tmp_path / "p", "a.png", "sub/b.jpg", "sub/c.png", "other/c.png", "d.png")
    table = tmp_path / "labels.csv"
    table.write_text("file,label,split\na,round,train\nsub/b.jpg,long,test\nc,odd,\ngone,round,\n")
    found, problems = labelled_pictures(tmp_path / "p", table)
    assert [(one.path.name, one.label, one.split) for one in found] == [
        ("a.png", "round", "train"),
        ("b.jpg", "long", "test"),
    ]
    assert any("c fits 2 files" in line for line in problems)
    assert any("holds no image gone" in line for line in problems)
    assert any("d.png has no line" in line for line in problems)
    table.write_text("file,label,split\na,round,holdout\n")
    with pytest.raises(InputError, match="split 'holdout' is unknown"):
        labelled_pictures(tmp_path / "p", table)
    table.write_text("file,label\nzzz,round\n")
    with pytest.raises(InputError, match="no line of"):
        labelled_pictures(tmp_path / "p", table)


def test_inputs_are_found_once_and_mistakes_keep_their_sentence(tmp_path: Path) -> None:
    make(tmp_path, "x/1.png", "y/1.png")
    found = find_pictures([tmp_path / "x", f"{tmp_path}/*/1.png", tmp_path / "z.png", f"{tmp_path}/*.gif"])
    assert len([one for one in found if not one.problem]) == 2
    assert len({one.stem for one in found}) == len(found)
    assert sum("does not exist" in one.problem for one in found) == 1
    with pytest.raises(InputError, match="No input"):
        find_pictures([])


VOTES = "GalaxyID,Class1.1,Class1.2,Class1.3,Class2.1,Class2.2," + ",".join(
    [f"Class5.{n}" for n in range(1, 5)] + [f"Class7.{n}" for n in range(1, 4)]
)


def test_galaxy_zoo_classes_follow_the_tree(tmp_path: Path) -> None:
    codes = {
        "Er": "Er",
        "Ei(d)": "Ei",
        "Ec": "Ec",
        "SBc?t": "Sc",
        "Sb+t": "Sb",
        "SBa2l": "Sa",
        "Sen": "Se",
        "A": "",
        "Sd": "Sd",
    }
    assert {code: class_of_string(code) for code in codes} == codes
    table = tmp_path / "votes.csv"
    table.write_text(
        f"{VOTES}\n1,.9,.1,0,0,0,0,0,0,0,.1,.7,.2\n2,.1,.9,0,.8,.2,0,0,0,0,0,0,0\n3,.1,.8,.1,.2,.8,.1,.2,.6,.1,0,0,0\n4,0,.1,.9,0,0,0,0,0,0,0,0,0\n"
    )
    assert is_galaxy_table(table)
    rows, dropped = read_galaxy_table(table)
    assert [(name, label) for _, name, label, _ in rows] == [("1", "Ei"), ("2", "Se"), ("3", "Sb")]
    assert dropped == 1
    strings = tmp_path / "strings.csv"
    strings.write_text("dr7objid,gz2class\n587,SBb?t\n588,A\n")
    assert read_galaxy_table(strings)[0][0][1:3] == ("587", "Sb")
    strings.write_text("number,gz2class\n587,Er\n")
    with pytest.raises(InputError, match="no column that names the picture"):
        read_galaxy_table(strings)
    assert class_of_votes(dict.fromkeys(VOTES.split(",")[1:], 0.0)) == "Er"

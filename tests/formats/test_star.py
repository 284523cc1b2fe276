"""STAR files: read strictly, written back byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equivox.errors import InputError
from equivox.formats.star import make_block, make_pairs, read_star, star_text, write_star

FIXTURES = Path(__file__).parents[1] / "fixtures"
CRYO = json.loads((FIXTURES / "cryoem" / "expected.json").read_text())
WHOLE = [FIXTURES / "cryoem" / name for name in CRYO if name.startswith("star/")]
WHOLE += sorted((FIXTURES / "projection2d" / "formats").glob("*.star"))
GRAMMAR = {
    "short_row": ("line 44", "15 values for 17"), "long_row": ("line 44", "19 values for 17"),
    "truncated": ("ends inside the row",), "duplicate_label": ("rlnAngleRot", "twice"),
    "no_data_block": ("loop_ before any data_",), "labels_without_loop": ("needs loop_",), "empty": ("0 bytes",),
    "binary": ("no text",),
}  # fmt: skip


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.name)
def test_an_unchanged_file_is_written_byte_for_byte(path: Path, tmp_path: Path) -> None:
    write_star(tmp_path / "again.star", read_star(path))
    assert (tmp_path / "again.star").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", [name for name in CRYO if name.startswith("star/")])
def test_blocks_and_rows_are_as_expected(name: str) -> None:
    expected, star = CRYO[name], read_star(FIXTURES / "cryoem" / name)
    if "rows" in expected:
        named = expected.get("block", "data_particles" if "particles" in star.names() else "data_").removeprefix(
            "data_"
        )
        assert len(star.block(named)) == expected["rows"]
    if "optics_rows" in expected:
        assert len(star.block("optics")) == expected["optics_rows"]
    if "general" in expected:
        assert dict(star.block("general").pairs) == {key: str(value) for key, value in expected["general"].items()}
    if "values" in expected:
        pairs = star.blocks[0].pairs
        assert pairs["rlnImageName"] == expected["values"]["rlnImageName"]
        assert pairs["rlnText"] == expected["values"]["rlnText"]
        assert float(pairs["rlnPixelSize"]) == expected["values"]["rlnPixelSize"]


def test_messy_syntax_is_understood() -> None:
    star = read_star(FIXTURES / "projection2d" / "formats" / "star_syntax.star")
    expected = json.loads((FIXTURES / "projection2d" / "formats" / "expected.json").read_text())["star_syntax.star"]
    assert dict(star.block("general").pairs) == expected["blocks"]["general"]
    for label, texts in expected["blocks"][""].items():
        assert star.block("").texts(label) == texts


@pytest.mark.parametrize("name", GRAMMAR)
def test_a_fault_is_one_sentence_with_its_place(name: str) -> None:
    with pytest.raises(InputError) as error:
        read_star(FIXTURES / "cryoem" / "star_broken" / f"{name}.star")
    for word in GRAMMAR[name]:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("data_\nloop_\n_a\n1\nloop_\n_b\n2\n", "second loop_"),
        ("data_\nloop_\n_a\n1\n\ndata_\n_b 1\n", "twice"),
        ("data_\nloop_\n_a\n_b\n1 2\n_c\n", "follows rows"),
        ("data_\nloop_\n1\n", "before the labels"),
        ("data_ x y\n", "follows data_"),
        ("data_\n1 2 3\n", "outside a loop_"),
        ("data_\n_a 1 2\n", "has 2 values"),
        ("data_\n_a\n;\nopen\n", "no end"),
        ("_a 1\n", "before any data_"),
        ("# nothing\n\n", "no data_ block"),
        ("data_\nloop_\n_a _b\n1 2\n", "begin the row below"),
    ],
)
def test_other_faults_are_said(text: str, word: str, tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    path.write_text(text)
    with pytest.raises(InputError, match=word):
        read_star(path)


def test_a_number_that_is_none_is_named_with_its_row_and_line() -> None:
    for name, value in (("not_a_number", "abc"), ("nan_angle", "nan")):
        block = read_star(FIXTURES / "cryoem" / "star_broken" / f"{name}.star").block("particles")
        with pytest.raises(InputError, match=rf"row 3 \(line 44\): _rlnAngleRot is '{value}'"):
            block.numbers("rlnAngleRot")


def test_a_missing_column_names_those_that_are_there() -> None:
    block = read_star(FIXTURES / "cryoem" / "star" / "relion31.star").block("particles")
    with pytest.raises(InputError, match="no column _rlnNothing; it has rlnCoordinateX"):
        block.numbers("rlnNothing")


def test_a_changed_column_leaves_the_text_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    path.write_text("# kept\ndata_x\n# kept too\nloop_\n_a\n_b #2\n'1 2' 3.0 # said\n4 5e-1\n\n")
    star = read_star(path)
    changed = star.with_block(star.block("x").with_columns({"b": [7, 8.5], "c": ["n m", ""]}))
    write_star(tmp_path / "b.star", changed)
    text = (tmp_path / "b.star").read_text()
    assert text.startswith("# kept\ndata_x\n# kept too\nloop_")
    back = read_star(tmp_path / "b.star").block("x")
    assert back.labels == ("a", "b", "c")
    assert back.columns("a", "b", "c") == [["1 2", "4"], ["7", "8.500000"], ["n m", ""]]
    assert "'1 2' 7" in text


def test_rows_are_chosen_with_their_text_and_columns_left_out() -> None:
    block = read_star(FIXTURES / "cryoem" / "star" / "relion31.star").block("particles")
    chosen = block.select([5, 0])
    assert chosen.texts("rlnImageName") == ["000006@stack.mrcs", "000001@stack.mrcs"]
    assert chosen.rows[0] == block.rows[5]
    without = block.without_columns("rlnImageName")
    assert "rlnImageName" not in without.labels
    assert without.texts("rlnMicrographName") == block.texts("rlnMicrographName")


def test_names_that_begin_as_a_block_does_are_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    path.write_text("data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\ndata_1.mrc 3\n")
    assert read_star(path).block("").texts("rlnMicrographName") == ["data_1.mrc"]


def test_bytes_that_are_no_utf8_survive(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    path.write_bytes(b"data_\nloop_\n_rlnMicrographName\nMikroskop_M\xfcnchen.mrc\n")
    write_star(tmp_path / "b.star", read_star(path))
    assert (tmp_path / "b.star").read_bytes() == path.read_bytes()


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="'\"\0", exclude_categories=("Cs", "Cc", "Zl", "Zp")))


@settings(max_examples=40)
@given(st.lists(st.tuples(TEXT, st.integers(-999, 999), st.floats(-1e4, 1e4)), min_size=1, max_size=6))
def test_made_tables_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, float]]) -> None:
    path = tmp_path_factory.mktemp("star") / "a.star"
    names, whole, real = zip(*rows, strict=True)
    write_star(path, [make_pairs("general", {"k": 3}), make_block("t", {"name": names, "i": whole, "x": real})])
    star = read_star(path)
    assert star.block("general").pairs["k"] == "3"
    block = star.block("t")
    assert block.texts("name") == list(names)
    assert block.integers("i").tolist() == list(whole)
    assert block.numbers("x").tolist() == pytest.approx(list(real), abs=1e-6)
    assert star_text(star) == path.read_bytes().decode()

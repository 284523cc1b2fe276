"""Every structure of the fixture comes out by the rule set; what breaks a rule is refused with a sentence."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import re
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from equivox.errors import InputError, MissingExtraError
from equivox.formats.environments import environments_of
from equivox.formats.proteins import read_structure

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "shapes" / "pdb"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
GOOD = sorted(name for name, entry in EXPECTED.items() if entry["ok"] is True)
BAD = sorted(name for name, entry in EXPECTED.items() if entry["ok"] is False)


@pytest.mark.parametrize("name", GOOD)
def test_good_files(name: str) -> None:
    structure = read_structure(FOLDER / name)
    assert {chain.name for chain in structure.chains} == set(EXPECTED[name]["chains"])
    for author, expected in EXPECTED[name]["chains"].items():
        trace = structure.chain(author).trace()
        assert trace.sequence == expected["seq"]
        assert list(trace.numbers) == expected["resnum"]
        assert list(trace.insertion_codes) == expected.get("icode", [""] * len(trace.sequence))
        assert_close(trace.positions, torch.tensor(expected["ca"], dtype=torch.float64), atol=0.002, rtol=0)
        assert trace.breaks == expected.get("breaks", trace.breaks)


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str) -> None:
    with pytest.raises(InputError) as caught:
        read_structure(FOLDER / name)
    assert name in str(caught.value)
    assert re.match(r"^[^\n]+[.]$", str(caught.value))


def test_what_was_assumed_is_said() -> None:
    assert any("2 models" in text for text in read_structure(FOLDER / "models.pdb").warnings)
    assert any("missing in 1 place." in text for text in read_structure(FOLDER / "gap.pdb").warnings)
    assert any("without a C-alpha" in text for text in read_structure(FOLDER / "missing_ca.pdb").warnings)
    assert read_structure(FOLDER / "plain.pdb").warnings == ()
    with pytest.raises(InputError, match=r"cannot be read \(line 4: Wrong number"):
        read_structure(FOLDER / "bad_loop.cif")


def test_a_compressed_file_reads_the_same(tmp_path: Path) -> None:
    packed = tmp_path / "plain.pdb.gz"
    packed.write_bytes(gzip.compress((FOLDER / "plain.pdb").read_bytes()))
    assert read_structure(packed).chain("A").trace().sequence == "AGSVK"
    packed.write_bytes(packed.read_bytes()[:60])
    with pytest.raises(InputError, match="truncated or damaged"):
        read_structure(packed)


def test_heavy_atoms_of_every_residue_without_hydrogens() -> None:
    chain = read_structure(FOLDER / "hydrogens.pdb").chain("A")
    assert set(chain.elements) <= {"C", "N", "O"}
    assert chain.residue.tolist() == sorted(chain.residue.tolist())
    alternate = read_structure(FOLDER / "altloc.pdb").chain("A")
    keys = list(zip(alternate.residue.tolist(), alternate.atom_names, strict=True))
    assert len(keys) == len(set(keys))


def replaced(tmp_path: Path, old: str, new: str, name: str = "plain.pdb") -> Path:
    text = (FOLDER / name).read_text()
    assert old in text
    path = tmp_path / name
    path.write_text(text.replace(old, new))
    return path


def test_an_unknown_residue_counts_as_x(tmp_path: Path) -> None:
    structure = read_structure(replaced(tmp_path, "GLY A   2", "QQQ A   2"))
    assert structure.chain("A").trace().sequence == "AXSVK"
    assert any("QQQ is no amino acid" in text for text in structure.warnings)


@pytest.mark.parametrize("value", ["     nan", "     inf", "99999.00"])
def test_positions_that_no_atom_has(tmp_path: Path, value: str) -> None:
    with pytest.raises(InputError, match=r"coordinate|position"):
        read_structure(replaced(tmp_path, "   3.800   0.000   0.000", f"{value}   0.000   0.000"))


def test_a_missing_coordinate_in_mmcif(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="position"):
        read_structure(replaced(tmp_path, "3.800 0.000 0.000", "? 0.000 0.000", "plain.cif"))


def test_letters_beyond_ascii_shift_no_column(tmp_path: Path) -> None:
    path = tmp_path / "accent.pdb"
    path.write_bytes("REMARK Å\n".encode() + (FOLDER / "plain.pdb").read_bytes().replace(b"ALA A", b"\xbfLA A", 5))
    assert read_structure(path).chain("A").trace().sequence == "XGSVK"


def test_a_residue_without_a_number(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="GLY has no number"):
        read_structure(replaced(tmp_path, "GLY A   2", "GLY A    "))


@pytest.mark.parametrize("name", GOOD)
def test_damaged_bytes_give_a_sentence_or_a_structure(name: str, tmp_path: Path) -> None:
    draw = random.Random(name)
    for _ in range(12):
        data = bytearray((FOLDER / name).read_bytes())
        if draw.random() < 0.3:
            del data[draw.randrange(len(data)) :]
        for _ in range(draw.choice([1, 4]) if data else 0):
            data[draw.randrange(len(data))] = draw.choice([draw.randrange(256), ord(draw.choice("0189-. \nN"))])
        path = tmp_path / name
        path.write_bytes(bytes(data))
        with contextlib.suppress(InputError):
            assert environments_of(read_structure(path)).positions.isfinite().all()


def test_chains_other_formats_and_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'Z' is none of them"):
        read_structure(FOLDER / "plain.pdb").chain("Z")
    with pytest.raises(InputError, match="does not exist"):
        read_structure(tmp_path / "none.pdb")
    (tmp_path / "page.html").write_text("<html>")
    with pytest.raises(InputError, match="not a structure by its name"):
        read_structure(tmp_path / "page.html")
    (tmp_path / "bytes.pdb").write_bytes(b"\x00\x01ATOM")
    with pytest.raises(InputError, match="not a text file"):
        read_structure(tmp_path / "bytes.pdb")


def test_without_gemmi_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gemmi", None)
    with pytest.raises(MissingExtraError, match=r"equivox\[shapes\]"):
        read_structure(FOLDER / "plain.pdb")

"""Atoms of structure files for densities."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from equivox.errors import ConfigError, InputError
from equivox.formats.atoms import read_atoms

pytest.importorskip("gemmi")
LINE = (
    "{kind:<6}{serial:>5} {name:<4}{alt}{residue:>3} {chain}{number:>4}    {x:8.3f}{y:8.3f}{z:8.3f}"
    "  1.00 20.00          {element:>2}\n"
)


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    default = {"kind": "ATOM", "alt": " ", "residue": "ALA", "chain": "A", "number": 1, "x": 0.0, "y": 0.0, "z": 0.0}
    lines = [LINE.format(**{**default, "serial": i + 1, **row}) for i, row in enumerate(rows)]
    path.write_text("".join(lines) + "END\n")
    return path


def test_heavy_atoms_of_polymers_are_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pdb", [
        {"name": " N", "element": "N", "x": 1.0}, {"name": " CA", "element": "C", "x": 2.0},
        {"name": " HA", "element": "H"}, {"name": " CB", "element": "C", "alt": "A", "x": 4.0},
        {"name": " CB", "element": "C", "alt": "B", "x": 9.0},
        {"name": " P", "element": "P", "residue": "A", "chain": "B", "x": 5.0},
        {"name": " O", "element": "O", "kind": "HETATM", "residue": "HOH", "number": 90, "x": 50.0},
        {"name": "ZN", "element": "ZN", "kind": "HETATM", "residue": "ZN", "number": 91, "x": 60.0},
    ])  # fmt: skip
    atoms = read_atoms(path)
    assert atoms.electrons.tolist() == [7.0, 6.0, 6.0, 15.0]
    assert atoms.positions_angstrom[:, 0].tolist() == [1.0, 2.0, 4.0, 5.0]
    assert read_atoms(path, chains=["B"]).electrons.tolist() == [15.0]
    assert 30.0 in read_atoms(path, ligands=True).electrons.tolist()
    center = (atoms.centred() * atoms.electrons[:, None]).sum(0)
    assert torch.allclose(center, torch.zeros(3, dtype=torch.float64), atol=1e-12)
    with pytest.raises(InputError, match="'Q' is none of them"):
        read_atoms(path, chains=["Q"])
    with pytest.raises(ConfigError, match="assemblies"):
        read_atoms(path, assembly="1")


def test_what_is_no_structure_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pdb").write_text("nothing\n")
    (tmp_path / "a.cif").write_text("data_x\n_cell.length_a 1\n")
    (tmp_path / "b.cif").write_text("loop_ broken")
    (tmp_path / "a.xyz").write_text("1\n")
    (tmp_path / "a.pdb.gz").write_bytes(b"\x1f\x8b\x08\0")
    water = write(tmp_path / "w.pdb", [{"name": " O", "element": "O", "kind": "HETATM", "residue": "HOH"}])
    for path, word in (
        (tmp_path / "a.pdb", "no atoms"), (tmp_path / "a.cif", "no atoms"), (tmp_path / "b.cif", "cannot be read"),
        (tmp_path / "a.xyz", "not a structure"), (tmp_path / "a.pdb.gz", "truncated"), (water, "no heavy atoms"),
        (tmp_path / "no.pdb", "does not exist"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=word):
            read_atoms(path)
